"""Ways of rounding."""
