"""Fine-tuning a model for a task: from labeled examples to a model folder with a head."""
