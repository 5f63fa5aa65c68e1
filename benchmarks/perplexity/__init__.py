"""What policies leave of a language model."""
