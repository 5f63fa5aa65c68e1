"""From ops to a library."""
