"""Models, outputs and libraries on disk."""
