"""qcc: a compression compiler for neural networks."""
