"""What stands behind a product and can be done along with it."""
