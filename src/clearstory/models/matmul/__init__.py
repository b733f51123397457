"""Matrix products: PyTorch's kernels, selection of the fastest, and packed weights."""
