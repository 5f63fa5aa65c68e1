"""Configurations of other tools, a module each."""
