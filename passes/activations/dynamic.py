"""Rounding activations by a step that each token computes for itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from qcc.ir.encoding.value import DYNAMIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.graph.form import Form
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.magnitudes import Magnitudes


@dataclass(frozen=True)
class Dynamic(Activations):
    """Round activations to int8 by one step for each token, computed as the model runs.

    A token is a row of what a layer reads: its last axis. The step is the row's largest magnitude over 127, so nothing
    is cut off, no data is needed, and what a row becomes does not depend on those beside it. The layer multiplies
    integers, which plain ONNX Runtime does much faster than floats; finding the largest magnitude and dividing by it
    costs some of that. It takes linear layers whose weights become ``int8 channel``. Kernels do it of themselves
    (``export { activations = int8 }``).

    Source: ZeroQuant, Yao et al. 2022 (arXiv:2206.01861), section 4.1.
    """

    when: ClassVar[Literal["static", "dynamic"]] = "dynamic"

    def encoding(self, form: Form) -> ValueEncoding:
        """The same for all layers."""
        return DYNAMIC_INT8

    def encoded(self, encoding: ValueEncoding, magnitudes: Magnitudes | None) -> EncodedValue:
        """The same for all values."""
        return EncodedValue(encoding)
