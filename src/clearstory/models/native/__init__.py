"""Kernels of our own in C, compiled for this processor: products with constant weights, and a whole decoding step."""
