"""Convolutions of bytes in one layout, channels last, that hand bytes on: products, depthwise ones, and what ends them."""
