"""What policies may call a way to store weights: one module a family, found by being in a folder of this one."""

from qcc.ir.plugins import joined

__path__ = joined(list(__path__), __name__)
