"""Models whose constants lie in one file together with those of others."""
