"""How well a model does its task, in the user's own terms: each score in a file of its own."""

from qcc.ir.plugins import joined

__path__ = joined(list(__path__), __name__)
