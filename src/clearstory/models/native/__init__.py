"""C kernels, compiled for this processor: products with constant weights, and complete decoding steps."""
