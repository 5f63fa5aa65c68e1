"""What the allocator gains over uniform formats."""
