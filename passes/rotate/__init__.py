"""Rotations of channels."""
