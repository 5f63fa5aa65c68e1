"""How the scales of blocks may be stored, beside plain floats."""
