"""The transformations, one file each: module name = keyword, dataclass fields = options, docstring = manual page."""
