"""How activations are rounded."""
