"""What packs of a family of models take, on disk and in memory."""
