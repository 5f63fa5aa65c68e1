"""Loops that a model is run in: described, made into tables, and driven."""
