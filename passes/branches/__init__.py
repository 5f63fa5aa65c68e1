"""What hangs beside the layers of a model, and can be a part of them."""
