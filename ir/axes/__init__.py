"""Which channels of a graph are the same, and what may be done to them."""
