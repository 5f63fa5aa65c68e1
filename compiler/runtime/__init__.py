"""ONNX Runtime with kernels."""
