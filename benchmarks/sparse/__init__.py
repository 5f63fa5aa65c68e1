"""Blocks that are stored alone, against dense products."""
