"""A folder from which onnxruntime-genai generates."""
