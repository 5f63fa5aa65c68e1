"""The C side of the CUDA library."""
