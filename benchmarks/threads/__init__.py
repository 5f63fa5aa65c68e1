"""Models over numbers of threads."""
