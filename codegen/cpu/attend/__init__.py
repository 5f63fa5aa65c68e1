"""Attention over blocks that are kept."""
