"""A toy target: kernels in plain C, for weights of one kind."""
