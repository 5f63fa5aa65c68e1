"""The Graph face over ONNX."""
