"""What formats of caches lose on a language model."""
