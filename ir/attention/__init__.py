"""Attention: where a graph has it, told by what its parts compute."""
