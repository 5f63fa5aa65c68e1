"""Channels put into another order."""
