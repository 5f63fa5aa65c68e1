"""A target."""
