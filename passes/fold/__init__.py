"""Scales of inputs folded into weights."""
