"""What a kernel op is, by its name."""
