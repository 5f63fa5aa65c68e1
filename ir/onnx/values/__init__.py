"""Values that are rounded as the model runs."""
