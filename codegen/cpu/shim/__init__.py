"""The C side of the CPU's libraries."""
