"""Ranges balanced between neighbouring layers."""
