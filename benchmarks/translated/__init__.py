"""Configurations of other tools, translated."""
