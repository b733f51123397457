"""Text: documents in, token ids out. Knows nothing of models."""
