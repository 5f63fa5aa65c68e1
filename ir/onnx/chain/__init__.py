"""Chains of convolutions of bytes: found in a graph of rounded values, and written as ops with channels last."""
