"""Weights that come compressed: see `tensor`."""
