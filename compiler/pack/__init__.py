"""Packs: models of one family in a folder, each constant of theirs stored once."""
