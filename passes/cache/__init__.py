"""Keys and values of earlier runs in fewer bits."""
