"""Models: the families and the one Transformer block. Knows nothing of text, training or files."""
