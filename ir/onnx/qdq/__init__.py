"""Files with values that are rounded, held to the rules of execution providers."""
