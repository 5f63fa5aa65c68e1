"""A piece of any graph, run in torch by what its ops are called in every framework: gradients pass through it."""
