"""Outputs compared with what they should be."""
