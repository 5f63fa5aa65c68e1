"""Choosing among samples."""
