"""What a form is: where an encoded weight is decoded in an exported model.

A form is one class in a module of `qcc.ir.forms`, and nothing registers it. It alone says which weights it holds, what
stands around them in a file and what that takes. An adapter writes it in a module of the form's name.
"""

from abc import ABC, abstractmethod
from math import prod
from typing import Any, ClassVar, Self

import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Part
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.packing import packed_bytes
from qcc.ir.encoding.value import EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.graph.costs import Cost, Costs
from qcc.ir.graph.ops import Weight

DECODE_OPSET = 18  # BitwiseAnd and BitwiseOr
CAST_OPSET = 13  # Cast and Gather of bfloat16
CAST_BYTES = 150  # of the ops around a weight that is stored in a narrower type of ONNX's own, in any form


class Form(ABC):
    """A form; there is one instance of each class, which `qcc.ir.forms.find` gives by its name."""

    name: ClassVar[str]
    """In plans, locks and reports; the module's name, and that of the modules that write it."""
    says: ClassVar[str]
    """What becomes of the weight, in a few words."""
    explains: ClassVar[str]
    """The same in a sentence for the report's page."""
    node_bytes: ClassVar[int]
    """Protobuf of the ops around a weight, about."""
    rank: ClassVar[int | None] = None
    """Its place among the forms that the runtime itself runs, in the order in which they are tried; None for others."""
    competes: ClassVar[bool] = True
    """Others are tried beside it by time; else it is taken wherever it can be."""
    packed: ClassVar[bool] = False
    """The codes themselves are multiplied, so that the weight stays as small in memory."""
    rounds: ClassVar[bool] = False
    """It multiplies whole numbers where what its layers read is encoded as such."""
    takes_zeros: ClassVar[bool] = False
    """The zero of what it multiplies may be any code, so that a range with one sign uses all of them."""
    signed: ClassVar[bool] = False
    """Codes of values have a sign, and the zero of a symmetric range is 0."""
    chains: ClassVar[bool] = False
    """What stands between its layers and only adds, pools or moves runs on whole numbers along with them."""
    rounds_products: ClassVar[bool] = False
    """What is made of two values is encoded, too, where integers are to be multiplied."""
    general: ClassVar[bool] = True
    """Any target has it; else those that name it."""
    writer: ClassVar[str] = ""
    """The module of an adapter that writes it; that of its name where nothing is said."""
    takes_steps: ClassVar[bool] = False
    """It takes the ops behind the product along (`qcc.ir.regions`)."""
    _only: ClassVar[Any]

    def __new__(cls) -> Self:
        """The one there is, also where it is copied or sent to another process."""
        if "_only" not in vars(cls):
            cls._only = super().__new__(cls)
        found: Self = cls._only
        return found

    def __str__(self) -> str:
        """The name."""
        return self.name

    def __repr__(self) -> str:
        """The name."""
        return self.name

    def concerns(self, weight: Weight) -> bool:
        """It is meant for weights of this kind, so that it is worth telling why it holds none."""
        return True

    def refuses(self, weight: Weight, encoding: Encoding) -> str:
        """Why the form cannot hold a weight under an encoding; empty if it can. Nothing else decides that.

        Args:
            weight: with the layers that read it, and how what they multiply it with is encoded.
            encoding: of the weight.
        """
        if encoding.undecodable:
            return encoding.undecodable
        if any(one is not None and not one.imitates for one in weight.reads) and not self.rounds:
            return "activations are rounded in the runtime's product of integers or in a kernel; this form is neither"
        return self._refuses(weight, encoding)

    def rounds_results(self, weight: Weight) -> bool:
        """It multiplies whole numbers only where what the weight's layers make is encoded as such, too."""
        return False

    def fixed(self, kind: str, function: str, encoding: ValueEncoding) -> tuple[float, int] | None:
        """The step, and the code of zero, that what an op makes must have; by default any.

        Args:
            kind: of the op.
            function: its name within the kind.
            encoding: of what it makes.
        """
        return None

    def added(self, weight: Weight, encoded: Encoded, bias: np.ndarray, read: EncodedValue) -> np.ndarray:
        """The bias of one of the weight's layers as it is added: as it is, unless the form has another type for it.

        Args:
            weight: with its layers.
            encoded: what it became.
            bias: a number for each output.
            read: how what the layer reads is encoded.
        """
        return bias

    @abstractmethod
    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        """The same of what some form decodes, and rounds."""

    def check(self, weight: Weight, encoded: Encoded) -> None:
        """Refuse what could not be written, before anything is.

        Raises:
            Refused: the form cannot hold it.
        """
        if encoded.shape != weight.shape:
            raise Refused(f"codes {encoded.shape} are not of the weight's shape {weight.shape}")
        if reason := self.refuses(weight, encoded.encoding):
            raise Refused(reason)

    def cost(self, encoding: Encoding, shape: MatrixShape, costs: Costs) -> Cost | None:
        """What a layer was measured to take; None if that is as float does, or was not measured."""
        return None

    def pays(self, cost: Cost | None) -> bool:
        """At this cost it is no slower than float."""
        return cost is None or cost.ratio <= 1

    def reason(self, cost: Cost | None) -> str:
        """Why it is taken, or at this cost is not."""
        return self.says if cost is None else f"the runtime's kernel was measured at {cost.text}"

    @property
    def alone(self) -> "Form":
        """What it makes of a layer that has its weight for itself, as layers are timed."""
        return self

    def everywhere(self, encoding: Encoding) -> Encoding:
        """The encoding, or what takes its place where a file must compute the same on every processor."""
        return encoding

    def note(self, encoding: Encoding) -> str:
        """What is worth telling of an encoding in this form; empty if nothing is."""
        return ""

    def stored_as(self, encoding: Encoding) -> Encoding:
        """The encoding as it is stored."""
        return encoding

    def opset(self, encoding: Encoding, shape: MatrixShape) -> int:
        """The lowest opset of ONNX that can express it."""
        return CAST_OPSET if _is_float(encoding) else DECODE_OPSET

    def framing_bytes(self, encoding: Encoding) -> int:
        """What stands around the weight in a file, about."""
        return CAST_BYTES if _is_float(encoding) else self.node_bytes

    def stored_bytes(self, encoding: Encoding, shape: MatrixShape) -> int:
        """The bytes that a matrix takes in a file: codes, scales, zero points and the ops around them.

        A matrix that several layers read is stored once, and each layer's ops are few beside it.
        """
        held = self.stored_as(encoding)
        if _is_float(held):
            return -(-held.size_bits(shape) // 8) + self.framing_bytes(held)
        parts = held.parts(shape).items()
        return self.framing_bytes(held) + sum(self.part_bytes(held, name, part, shape) for name, part in parts)

    def part_bytes(self, encoding: Encoding, name: str, part: Part, shape: MatrixShape) -> int:
        """The bytes of a part: codes fill whole units."""
        if part.dtype is not np.uint8:
            return part.size_bits // 8
        return packed_bytes(prod(part.shape), part.bits)


def _is_float(encoding: Encoding) -> bool:
    return isinstance(encoding, Blocked) and encoding.is_float
