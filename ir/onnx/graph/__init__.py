"""What an ONNX graph means on the Graph face."""
