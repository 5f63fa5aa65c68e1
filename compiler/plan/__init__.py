"""What will be done: the plan, its text and its file."""
