"""Functions that are looked up."""
