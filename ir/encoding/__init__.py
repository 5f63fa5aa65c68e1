"""How numbers are stored: grids, blocks, scales, packing."""
