"""Writing what became of a graph: programs that decode what is stored."""
