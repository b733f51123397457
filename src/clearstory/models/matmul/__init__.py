"""Matrix products: the kernels of PyTorch, which of them is fastest here, and packed weights."""
