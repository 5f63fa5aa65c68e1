"""Models for transport: the same bytes in fewer, by the entropy of their codes."""
