"""Searching for values of a policy's parameters."""
