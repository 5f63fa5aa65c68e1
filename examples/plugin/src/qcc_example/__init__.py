"""A plugin of qcc."""
