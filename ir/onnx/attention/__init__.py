"""Attention as one op of ONNX Runtime."""
