"""A model as it comes and goes: what the driver knows of a framework beside its graphs."""
