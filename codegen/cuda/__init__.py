"""Kernels for CUDA, as a library for ONNX Runtime's CUDA provider."""
