"""Execution providers that make integers of ops between QuantizeLinear and DequantizeLinear."""
