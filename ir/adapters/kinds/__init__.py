"""What adapters may be made of: one module a kind, found by being in this folder."""
