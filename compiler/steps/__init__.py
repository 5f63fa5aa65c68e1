"""What a compilation does with a loop: data from it, a search for it, what its steps share, and how it ends."""
