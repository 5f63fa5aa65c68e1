"""What tables lose whose rows are merged."""
