"""Tasks that models are fine-tuned for: data, loss, predictions and metrics of each."""
