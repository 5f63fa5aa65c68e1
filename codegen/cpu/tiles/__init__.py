"""Products of many rows, by tiles, and what lays rows out for them."""
