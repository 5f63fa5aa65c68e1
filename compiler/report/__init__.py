"""What was done, told."""
