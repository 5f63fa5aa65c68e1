"""What every pass speaks: the Graph face with its adapters, and the algebra of encodings."""
