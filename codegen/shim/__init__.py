"""The C side of a library."""
