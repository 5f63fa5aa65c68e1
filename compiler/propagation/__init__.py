"""How errors come about in a compressed model: what each layer adds to those that it is given."""
