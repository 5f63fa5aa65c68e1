"""The definitions, found by being here."""

from qcc.ir.plugins import joined

__path__ = joined(list(__path__), __name__)
