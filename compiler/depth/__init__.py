"""Which blocks go or share their weights, where that is for the allocator to decide."""
