"""Models of published architectures with random weights, exported to ONNX (`export`)."""
