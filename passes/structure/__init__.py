"""Passes that leave parts of a model out."""
