"""Other execution providers of ONNX Runtime, which run a graph in which values are rounded as they have it.

None of them runs here: what is written is computed by the CPU's, and held to the provider's rules by reading the file.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from qcc.codegen.target.target import Processor, Target
from qcc.ir.forms.find import forms
from qcc.ir.forms.qdq import QdqForm
from qcc.ir.forms.qdq_rules import qdq_rules
from qcc.ir.graph.costs import CapabilityTable


class Qdq(Target[Processor]):
    """a graph with QuantizeLinear and DequantizeLinear as one other execution provider takes it; runs on any CPU."""

    name: ClassVar[str] = "qdq"
    one_word: ClassVar[bool] = True
    timed: ClassVar[bool] = False

    @property
    def capabilities(self) -> Mapping[str, CapabilityTable]:
        """None: nothing was measured there."""
        return {}

    @property
    def words(self) -> tuple[str, ...]:
        """The providers."""
        return tuple(qdq_rules())

    def rounding_forms(self, words: Collection[str]) -> frozenset[str]:
        """The provider's own."""
        found = (form for form in forms().values() if isinstance(form, QdqForm))
        return frozenset(form.name for form in found if form.provider in words)

    def faults(self, words: Collection[str], path: Path) -> list[str]:
        """By the provider's rules."""
        from qcc.ir.onnx.qdq.check_qdq import qdq_faults  # loads onnx

        return [fault for word in words for fault in qdq_faults(path, qdq_rules()[word])]
