"""What passes over channels share."""
