"""Models that return what their next run takes, driven token by token."""
