"""What a model does for a sample, counted from its graph: multiplications, values written and read, energy."""
