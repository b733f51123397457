"""Training: objectives, batches, the optimizer and the loop. Imports no other use of a model."""
