"""Formats that are made of others."""
