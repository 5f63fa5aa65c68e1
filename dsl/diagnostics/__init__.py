"""What is wrong with a text, and how it is told."""
