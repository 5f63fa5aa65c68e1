"""Graphs run side by side, piece by piece, as they were and as they will be."""
