"""Text classifiers without a network, as baselines for fine-tuned models."""
