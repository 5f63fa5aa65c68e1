"""What is read off a model while it runs on data: one pass for all that is asked."""
