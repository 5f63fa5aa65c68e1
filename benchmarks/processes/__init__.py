"""What benchmarks share: processes of their own, and time."""
