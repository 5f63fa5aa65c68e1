"""The whole graph in half precision."""
