"""How far a model's outputs are from what they should be: each metric in a file of its own."""
