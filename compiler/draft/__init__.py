"""Policies that qcc writes: a first one for a model, and those of other tools."""
