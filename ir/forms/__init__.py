"""Where a stored weight is decoded, and which form it gets."""
