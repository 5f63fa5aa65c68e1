"""The same model elsewhere."""
