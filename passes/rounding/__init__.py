"""Rounding methods: from a matrix to codes."""
