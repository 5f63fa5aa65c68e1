"""Norms folded into the layers beside them."""
