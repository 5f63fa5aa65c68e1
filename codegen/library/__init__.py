"""What every library is made with."""
