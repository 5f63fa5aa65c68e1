"""Processors, and what follows from one's caches."""
