"""How encoded weights stand in an ONNX file."""
