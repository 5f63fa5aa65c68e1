"""How well a model does its task, in the user's own terms: each score in a file of its own."""
