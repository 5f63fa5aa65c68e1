"""What candidates cost, in error and in time."""
