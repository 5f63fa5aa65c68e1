"""What every command shows in a terminal."""
