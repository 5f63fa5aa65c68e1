"""Models timed against each other."""
