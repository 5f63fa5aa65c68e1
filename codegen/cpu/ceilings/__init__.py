"""What a processor could reach."""
