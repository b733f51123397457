"""Models: the model families and the Transformer block. Independent of text, training and file formats."""
