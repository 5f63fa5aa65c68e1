"""Formats of one grid: codes, with a scale for each block or none."""
