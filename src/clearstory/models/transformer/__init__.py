"""The Transformer as decoder, encoder and encoder-decoder (Vaswani et al. 2017)."""
