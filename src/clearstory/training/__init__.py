"""Training: objectives, batches, optimizers, the trainers, checkpoints and the metrics log."""
