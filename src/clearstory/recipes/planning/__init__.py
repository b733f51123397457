"""Planning: parameters, memory, FLOPs and training time of a model that is not built."""
