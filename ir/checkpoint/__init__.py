"""Checkpoints: weights in a file without what is computed with them."""
