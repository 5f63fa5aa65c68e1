"""Convolutions of bytes in one layout, channels last, that hand bytes on: products, depthwise, and what ends them."""
