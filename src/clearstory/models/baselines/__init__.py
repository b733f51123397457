"""Classifiers of texts without a network: what a fine-tuned model is compared with."""
