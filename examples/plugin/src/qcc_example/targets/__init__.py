"""Targets, a folder each."""
