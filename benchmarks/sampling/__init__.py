"""Step caches, short loops and compressed diffusion models."""
