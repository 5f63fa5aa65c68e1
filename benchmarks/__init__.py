"""Measurements, each a command that prints its machine, its command line and the day."""
