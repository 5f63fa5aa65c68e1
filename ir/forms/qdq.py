"""Whole numbers as an execution provider of ONNX Runtime takes them, by the rules of `qdq_rules`."""

import re
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.encoding.blocks import TENSOR
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.value import EncodedValue, ValueEncoding
from qcc.ir.forms.integers import MOST_ADDED, WHOLE, IntegersForm
from qcc.ir.forms.qdq_rules import QdqRules, qdq_rules
from qcc.ir.graph.ops import Weight
from qcc.ir.vocabulary.find import OPS


class QdqForm(IntegersForm, ABC):
    """``op(x, W, b)  -->  op(DQ(Q(x)), DQ(codes), b)``, and behind it a ``Q`` and ``DQ`` where a provider wants that.

    All that providers differ in are their rules.
    """

    says: ClassVar[str] = "whole numbers between QuantizeLinear and DequantizeLinear"
    explains: ClassVar[str] = (
        "what is multiplied is rounded to 8 bits and decoded again, in the way that the provider makes integers of."
    )
    general: ClassVar[bool] = False
    writer: ClassVar[str] = "qdq"

    @property
    @abstractmethod
    def provider(self) -> str:
        """The word for it."""

    @property
    def rules(self) -> QdqRules:
        """The provider's."""
        return qdq_rules()[self.provider]

    @property
    def takes_zeros(self) -> bool:  # type: ignore[override]  # the rules say so
        """The zero may be any code, unless the provider's are all 0."""
        return not self.rules.centred

    @property
    def signed(self) -> bool:  # type: ignore[override]  # the rules say so
        """Codes of values have a sign where their zeros are 0."""
        return self.rules.centred

    @property
    def chains(self) -> bool:  # type: ignore[override]  # the rules say so
        """Results are rounded, so that what stands between runs on whole numbers, too."""
        return self.rules.results

    @property
    def rounds_products(self) -> bool:  # type: ignore[override]  # the rules say so
        """As results of layers."""
        return self.rules.results

    def rounds_results(self, weight: Weight) -> bool:
        """As the rules say."""
        return self.rules.results

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        title = self.rules.title
        found = integers(encoding)
        if None in weight.reads:
            return f"{title} multiplies integers only where activations are rounded"
        if not weight.kinds <= {"linear", "conv"} or len(weight.kinds) > 1:
            return f"{title} multiplies integers in linear layers and convolutions"
        if any(layer.function == "conv_transpose" or not layer.input for layer in weight.layers):
            return "transposed convolutions, and layers in branches and loops, stay floats"
        free = weight.kinds == {"conv"} or all(layer.form_free for layer in weight.layers)
        if weight.dtype != "float32" or not free:
            return "the weight is read in a way that no product of integers takes"
        if any(not _static(one) for one in weight.reads):
            return f"{title} takes one step for all, as in `activations = static`"
        taken = {int(re.sub(r"\D", "", name)) for name in self.rules.values}
        if not all(one is not None and one.width in taken for one in weight.reads):
            return f"{title} takes values of {' or '.join(map(str, sorted(taken)))} bits"
        if found is None or found.grid != WHOLE or not (_whole(found) or _by_channel(found, weight)):
            return f"{title} takes weights in `int8 channel` or `int8 tensor`, not {encoding.text}"
        if not _whole(found) and (wrong := self._without_axis(weight)):
            return f"{title} takes one scale for all of a weight of {wrong}, as in `int8 tensor`"
        return f"that takes up to {MOST_ADDED} inputs" if weight.shape[1] > MOST_ADDED else ""

    def fixed(self, kind: str, function: str, encoding: ValueEncoding) -> tuple[float, int] | None:
        """As the rules say by ONNX's name of the op and the type of codes."""
        known = OPS.get((kind, function))
        names = () if known is None else known.onnx.split()
        dtype = f"{'' if encoding.signed else 'u'}int{encoding.code_bits}"
        return next((self.rules.steps[name][dtype] for name in names if dtype in self.rules.steps.get(name, {})), None)

    def _without_axis(self, weight: Weight) -> str:
        """An op of the weight's whose scales may not lie along channels; empty if there is none."""
        names = {"conv": ("Conv",), "linear": ("MatMul", "Gemm")}[next(iter(weight.kinds))]
        return next((name for name in names if name not in self.rules.axes), "")

    def added(self, weight: Weight, encoded: Encoded, bias: np.ndarray, read: EncodedValue) -> np.ndarray:
        """In the integers that are added up, where the provider has it so."""
        return super().added(weight, encoded, bias, read) if self.rules.bias == "int32" else bias

    def everywhere(self, encoding: Encoding) -> Encoding:
        """As it is: the provider adds exactly."""
        return encoding

    def note(self, encoding: Encoding) -> str:
        """Nothing."""
        return ""

    def stored_as(self, encoding: Encoding) -> Encoding:
        """With scales of float32."""
        found = integers(encoding)
        return encoding if found is None else Blocked(found.grid, found.block, "fp32")


class QdqTensorrt(QdqForm):
    """As NVIDIA TensorRT takes it."""

    name: ClassVar[str] = "qdq_tensorrt"
    provider: ClassVar[str] = "tensorrt"


class QdqQnn(QdqForm):
    """As Qualcomm's QNN takes it."""

    name: ClassVar[str] = "qdq_qnn"
    provider: ClassVar[str] = "qnn"


class QdqOpenvino(QdqForm):
    """As Intel's OpenVINO takes it."""

    name: ClassVar[str] = "qdq_openvino"
    provider: ClassVar[str] = "openvino"


def _static(read: ValueEncoding | None) -> bool:
    return read is not None and read.when == "static" and not read.float_tokens and not read.by_token


def _whole(found: Blocked) -> bool:
    return found.block == TENSOR


def _by_channel(found: Blocked, weight: Weight) -> bool:
    return found.block.rows == 1 and found.block.grid(weight.shape)[1] == 1
