"""What policies may call a way to store weights: one module a family, found by being in a folder of this one."""
