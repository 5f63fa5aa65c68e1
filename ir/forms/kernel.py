"""The form that kernel libraries take over: one op of domain ``qcc`` for a product, and what stands behind it."""

from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Part
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.packing import UNIT, packed_bytes
from qcc.ir.encoding.value import STATIC_INT8
from qcc.ir.forms.integers import refuses_integers
from qcc.ir.graph.costs import Cost, Costs, Way
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Layer, Weight
from qcc.ir.kernel.op import CHUNK, Leaf, LinearOp, OpError, kernel_encoding, unmultiplied

MEASURED_GROUP = 32  # inputs that share a scale in kernels that were measured by groups


class KernelForm(Form):
    """``steps(x @ W)  -->  linear_steps(x, parts, operands)``; embeddings gather rows of the same codes.

    The op is a function of the model's own, so that the file runs without a library too.
    """

    name: ClassVar[str] = "kernel"
    says: ClassVar[str] = "decoded in a kernel of ours"
    explains: ClassVar[str] = (
        "one op, a function of the model's own that decodes and multiplies: a kernel library takes it over."
    )
    node_bytes: ClassVar[int] = 360
    packed: ClassVar[bool] = True
    rounds: ClassVar[bool] = True
    takes_steps: ClassVar[bool] = True

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        conv, free = weight.kinds == {"conv"}, all(layer.form_free for layer in weight.layers)
        linear = "linear" in weight.kinds and weight.kinds <= {"linear", "embedding"}
        if not linear and not (conv and free):
            return (
                "kernels take linear layers, the tables that those share with embeddings, and convolutions of one point"
            )
        if not free:
            return "the weight is shared, or read in a way that no kernel takes"
        if weight.dtype != "float32":
            return f"kernels compute in float32, and the layer in {weight.dtype}"
        return (
            unmultiplied(encoding)
            or _does_not_fit(weight, encoding, UNIT if conv else CHUNK)
            or _no_rounding(weight, encoding)
        )

    def cost(self, encoding: Encoding, shape: MatrixShape, costs: Costs) -> Cost | None:
        """Of our kernels; None where they were not measured, as of blocks: what these take depends on how many stay.

        Groups of any size count as groups of 32; codes that were not measured, those with zero points among them, as
        integers of as many bits without any.
        """
        if not isinstance(encoding, Blocked):
            return None
        group = 0 if encoding.scale is None or encoding.block.grid(shape)[1] == 1 else MEASURED_GROUP
        like = f"int{encoding.parts(shape)['codes'].bits} sym"
        ways = [Way("kernel", kind, group, costs.activations) for kind in (encoding.kind, like)]
        return next(filter(None, map(costs.as_asked, ways)), None)

    def part_bytes(self, encoding: Encoding, name: str, part: Part, shape: MatrixShape) -> int:
        """The bytes of each row fill whole units."""
        if part.dtype is np.uint8:
            return part.shape[0] * packed_bytes(part.shape[1], part.bits)
        return super().part_bytes(encoding, name, part, shape)


def _no_rounding(weight: Weight, encoding: Encoding) -> str:
    """Why no kernel takes what the layers read as it is encoded; empty if one does, or nothing is."""
    if weight.reads == {None}:
        return ""
    if weight.reads != {STATIC_INT8}:
        return "kernels that are given whole numbers take one step; a step a row is `export { activations = int8 }`"
    return refuses_integers(weight, encoding)


def _does_not_fit(weight: Weight, encoding: Encoding, unit: int) -> str:
    """Why no kernel takes a matrix of this shape in such blocks; empty if one does."""
    if encoding.tile is not None:
        return _tiles_do_not_fit(weight, encoding.tile)
    assert isinstance(encoding, Blocked)
    block = encoding.block
    if block.rows != 1:
        return "kernels take scales per channel or per group"
    columns, size = weight.shape[1], block.of(weight.shape)[1]
    if columns % unit:
        return f"kernels take multiples of {unit} inputs, and the layer has {columns}"
    if (size % CHUNK and size != columns) or columns % size:
        return f"kernels take groups of a multiple of {CHUNK} that divide the {columns} inputs, not of {size}"
    return ""


def _tiles_do_not_fit(weight: Weight, tile: MatrixShape) -> str:
    if weight.kinds != {"linear"}:
        return "kernels take blocks of linear layers alone"
    if any(extent % size for extent, size in zip(weight.shape, tile, strict=True)):
        shape = "x".join(map(str, weight.shape))
        return f"kernels take blocks that divide a layer, and {tile[0]}x{tile[1]} do not divide {shape}"
    return ""


def kernel_layers(weight: Weight) -> list[Layer]:
    """The layers that kernels do the product of, if they take the weight."""
    return [layer for layer in weight.layers if layer.kind.value in ("linear", "conv") and layer.form_free]


def kernel_op(
    encoding: Encoding,
    shape: tuple[int, int],
    steps: tuple[str, ...] = (),
    pointwise: bool = False,
    static: bool = False,
) -> LinearOp:
    """The op that multiplies by such a weight and takes these steps.

    Raises:
        OpError: there is no such op.
    """
    if reason := unmultiplied(encoding):
        raise OpError(reason)
    if encoding.tile is not None:
        (inner,), size = encoding.within, encoding.tile[0] * encoding.tile[1]
        assert isinstance(inner, Leaf)
        return LinearOp(kernel_encoding(inner, (1, size)), steps, pointwise, static, encoding.tile)
    assert isinstance(encoding, Blocked)
    return LinearOp(kernel_encoding(encoding, shape), steps, pointwise, static)


KERNEL = KernelForm()
