"""The forms in which an encoded weight can stand in an exported model, and which one a weight gets.

`choose` rests on tables of what was measured (`capabilities`), one for each instruction set, not on what the machine
at hand does today: the same input must give the same bytes. Where kernels are made for this machine the driver times
forms instead, and the plan keeps its choice.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from qcc.ir.encoding.algebra import Encoding, Part
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS, Blocked, integers
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.form import Form
from qcc.ir.encoding.grid import FloatGrid, IntGrid
from qcc.ir.encoding.packing import UNIT, packed_bytes
from qcc.ir.errors import Refused
from qcc.ir.forms.capabilities import fused_capability, fused_cost
from qcc.ir.kernel.op import CHUNK, LONGEST, LinearOp, OpError

if TYPE_CHECKING:
    from qcc.ir.graph.ops import Layer, Weight

MAX_BITS = 8  # of integers
BF16 = FLOAT_ENCODINGS["bf16"]
NODE_BYTES = {"fused": 520, "decoded": 450, "rows": 1000, "kernel": 360}  # protobuf of the ops around a weight, about
BYTES = (7, 8)  # bits of a code that the runtime's product of integers holds in a byte; in fewer nothing is gained
CAST_BYTES = 150  # of the ops around a weight that is stored in a narrower type of ONNX's own, in any form


@dataclass(frozen=True)
class Choice:
    """A form with the reason for it, one line for the report."""

    form: Form
    reason: str


def choose(weight: "Weight", encoding: Encoding, instructions: Collection[str] = ()) -> Choice:
    """The form of a weight under an encoding, by the committed measurements of instruction sets; of all without any.

    Raises:
        Refused: no form could hold it.
    """
    if reason := undecodable(encoding):
        raise Refused(reason)
    if "embedding" in weight.kinds and not encoding.rows_apart:
        return Choice(Form.DECODED, "rows cannot be decoded one by one: they share scales")
    if "embedding" in weight.kinds:
        return Choice(Form.ROWS, "packed rows are gathered, then decoded")
    refused = unfused(weight, encoding)
    if refused:
        return Choice(Form.DECODED, refused)
    cost = fused_cost(encoding, instructions)
    form = Form.DECODED if cost.ratio > 1 else Form.FUSED
    return Choice(form, f"the runtime's kernel was measured at {cost.text}")


def unfused(weight: "Weight", encoding: Encoding) -> str:
    """Why the runtime has no compressed kernel for a weight under an encoding; empty if it has one."""
    if weight.kinds != {"linear"}:
        return "the runtime has no compressed kernel for this layer"
    if len(weight.layers) > 1 or not all(layer.form_free for layer in weight.layers):
        return "the weight is shared, or read in a way that no compressed kernel takes"
    if fused_capability(encoding, weight.shape) is None or weight.dtype != "float32":
        return "the runtime has no compressed kernel for this format"
    return ""


def plain_forms(weight: "Weight", encoding: Encoding, instructions: Collection[str] = ()) -> tuple[Form, ...]:
    """The forms that a weight may have under an encoding without a kernel of ours, what `choose` takes first."""
    first = choose(weight, encoding, instructions).form
    others = (Form.DECODED,) if first is Form.FUSED else ()
    if first is Form.DECODED and not unfused(weight, encoding):
        others = (Form.FUSED,)
    return (first, *others)


def undecodable(encoding: Encoding) -> str:
    """Why no form could hold an encoding, since no decoder knows it; empty if one does.

    What can be rounded to and decoded here may still have no decoder in a file: there floats are those of ONNX's own
    types, without scales, and integers have 2 to 8 bits and scales.
    """
    if not isinstance(encoding, Blocked):
        return ""
    grid = encoding.grid
    if isinstance(grid, FloatGrid):
        known = encoding in FLOAT_ENCODINGS.values()
        return "" if known else f"no form holds {encoding.text}: floats are stored as {' or '.join(FLOAT_ENCODINGS)}"
    least = 2 if grid.symmetric else 1  # a single bit around its zero would leave one number
    if isinstance(grid, IntGrid) and not least <= grid.bits <= MAX_BITS:
        return f"no form holds integers of {grid.bits} bits, only of {least} to {MAX_BITS}"
    return "" if encoding.scale else f"no form holds {encoding.text} without scales"


def unheld(form: Form, weight: "Weight", encoding: Encoding, static: bool = False) -> str:
    """Why a form cannot hold a weight under an encoding; empty if it can.

    Args:
        form: where the decoding is to happen.
        weight: with the layers that read it.
        encoding: of the weight.
        static: its layers round what they multiply it with by a step that the model holds.
    """
    if reason := undecodable(encoding):
        return reason
    if form is Form.FUSED:
        return static_takes(weight, encoding, kernels=False) if static else unfused(weight, encoding)
    if form is Form.KERNEL:
        return kernel_takes(weight, encoding) or (static_takes(weight, encoding, kernels=True) if static else "")
    if static:
        return "activations are rounded in the runtime's product of integers or in a kernel, and this form is neither"
    if form is Form.ROWS and "embedding" not in weight.kinds:
        return "only embeddings are read by rows"
    if form is Form.ROWS and not encoding.rows_apart:
        return "an embedding is read by rows: its scales must be per channel or per group"
    return ""


def check_held(form: Form, weight: "Weight", encoded: Encoded) -> None:
    """Refuse what could not be written, before anything is.

    Raises:
        Refused: the form cannot hold it.
    """
    if encoded.shape != weight.shape:
        raise Refused(f"codes {encoded.shape} are not of the weight's shape {weight.shape}")
    if reason := unheld(form, weight, encoded.encoding, encoded.input_step is not None):
        raise Refused(reason)


def kernel_takes(weight: "Weight", encoding: Encoding) -> str:
    """Why no kernel of ours could take a weight under an encoding; empty if one can."""
    conv, free = weight.kinds == {"conv"}, all(layer.form_free for layer in weight.layers)
    linear = "linear" in weight.kinds and weight.kinds <= {"linear", "embedding"}
    if not linear and not (conv and free):
        return "kernels take linear layers, the tables that those share with embeddings, and convolutions of one point"
    if not free:
        return "the weight is shared, or read in a way that no kernel takes"
    if weight.dtype != "float32":
        return f"kernels compute in float32, and the layer in {weight.dtype}"
    if reason := _unkerneled(encoding):
        return reason
    block = (integers(encoding) or BF16).block
    if block.rows != 1:
        return "kernels take scales per channel or per group"
    columns, size = weight.shape[1], block.of(weight.shape)[1]
    unit = UNIT if conv else CHUNK
    if columns % unit:
        return f"kernels take multiples of {unit} inputs, and the layer has {columns}"
    if (size % CHUNK and size != columns) or columns % size:
        return f"kernels take groups of a multiple of {CHUNK} that divide the {columns} inputs, not of {size}"
    return ""


def _unkerneled(encoding: Encoding) -> str:
    """Why no kernel decodes an encoding; empty if one does."""
    if integers(encoding) is None and encoding != BF16:
        return f"no kernel multiplies by weights of {encoding.text}"
    return undecodable(encoding)


def static_takes(weight: "Weight", encoding: Encoding, kernels: bool) -> str:
    """Why no product of integers could take a weight along with static activations; empty if one can.

    Args:
        weight: that is encoded.
        encoding: how.
        kernels: that take it are made; the runtime's own product is for signed bytes.
    """
    if weight.kinds != {"linear"}:
        return "only those of linear layers are"
    if weight.dtype != "float32":
        return f"that takes float32, and the layers compute in {weight.dtype}"
    if not all(layer.form_free for layer in weight.layers):
        return "the weight is read in a way that no product of integers takes"
    found = integers(encoding)
    if found is None or found.block.rows != 1 or found.block.grid(weight.shape)[1] != 1:
        return f"that takes weights with one scale a channel, as in `int8 channel`, not {encoding.text}"
    if weight.shape[1] > LONGEST:
        return f"that takes up to {LONGEST} inputs"
    if not kernels and (found.bits not in BYTES or not found.symmetric):
        return f"without a kernel that takes weights in `int8 channel sym`, not {encoding.text}"
    return ""


def kernel_layers(weight: "Weight") -> list["Layer"]:
    """The layers that kernels do the product of, if they take the weight."""
    return [layer for layer in weight.layers if layer.kind.value in ("linear", "conv") and layer.form_free]


def kernel_op(
    encoding: Blocked,
    shape: tuple[int, int],
    steps: tuple[str, ...] = (),
    pointwise: bool = False,
    static: bool = False,
) -> LinearOp:
    """The op that multiplies by such a weight and takes these steps; one group a row is a channel.

    Raises:
        OpError: there is no such op.
    """
    if reason := _unkerneled(encoding):
        raise OpError(reason)
    group = None if encoding.block.grid(shape)[1] == 1 else encoding.block.columns
    return LinearOp(encoding.bits, group, encoding.symmetric, steps, pointwise, static)


def held(encoding: Encoding, form: Form, static: bool) -> Encoding:
    """An encoding as a form stores it: the runtime multiplies integers in bytes, with scales of float32."""
    found = integers(encoding) if static and form is Form.FUSED else None
    return encoding if found is None else Blocked(IntGrid(8), found.block, "fp32")


def stored_bytes(encoding: Encoding, shape: tuple[int, int], form: Form, static: bool = False) -> int:
    """The bytes that a matrix takes in a file in this form: codes, scales, zero points and the ops around them.

    A matrix that several layers read is stored once, and each layer's ops are few beside it.

    Args:
        encoding: of the matrix.
        shape: outputs and inputs.
        form: where the decoding happens.
        static: its layers round what they multiply it with.
    """
    encoding = held(encoding, form, static)
    if isinstance(encoding, Blocked) and encoding.is_float:
        return -(-encoding.size_bits(shape) // 8) + CAST_BYTES
    parts = encoding.parts(shape).items()
    return NODE_BYTES[form] + sum(_part_bytes(encoding, name, part, shape, form) for name, part in parts)


def _part_bytes(encoding: Encoding, name: str, part: Part, shape: tuple[int, int], form: Form) -> int:
    """The bytes of a part: codes fill whole units, by rows if these are read one by one."""
    if form is Form.FUSED and name == "zero" and isinstance(encoding, Blocked):  # in the runtime's own narrow type
        return -(-prod(part.shape) * encoding.bits // 8)
    if part.dtype is not np.uint8:
        return part.size_bits // 8
    if form is Form.ROWS and part.shape[0] == shape[0]:
        return part.shape[0] * packed_bytes(prod(part.shape[1:]), part.bits)
    return packed_bytes(prod(part.shape), part.bits)
