"""How far a model's outputs are from what they should be: each metric in a file of its own."""

from qcc.ir.plugins import joined

__path__ = joined(list(__path__), __name__)
