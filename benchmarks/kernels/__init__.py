"""Kernels, layer by layer."""
