"""Data from what people have: images, text, scripts; a sample at a time."""
