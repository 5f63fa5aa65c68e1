"""The Graph face: what passes see of a model."""
