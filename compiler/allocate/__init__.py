"""Which candidate each weight gets."""
