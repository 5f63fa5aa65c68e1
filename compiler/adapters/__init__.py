"""Adapters that a policy names, put into a model before anything else is done with it."""
