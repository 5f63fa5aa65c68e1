"""The transformations, one file each: module name = keyword, dataclass fields = options, docstring = manual page."""

from qcc.ir.plugins import joined

__path__ = joined(list(__path__), __name__)
