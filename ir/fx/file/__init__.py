"""Programs in files and in memory."""
