"""Data, and what is read off it."""
