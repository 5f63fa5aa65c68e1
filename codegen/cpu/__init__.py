"""Templates of CPU kernels."""
