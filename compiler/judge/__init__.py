"""Judging a compressed model by the user's own score: on labels, or by a function that is given."""
