"""Generation: sampling with continuous batching, beam search, and streaming of text."""
