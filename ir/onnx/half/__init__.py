"""Ops of half precision: made, and emulated."""
