"""The runtime's own compressed product: ``DequantizeLinear`` by blocks, which it fuses with the product."""

from math import prod
from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Part
from qcc.ir.encoding.blocked import Blocked, integers
from qcc.ir.forms.fusible import fusible_as
from qcc.ir.graph.costs import Cost, Costs, Way
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight

LEVEL = "level 4"  # the accuracy at which the runtime fuses, unless a session asks for another


class FusedForm(Form):
    """``x @ W  -->  x @ DequantizeLinear(codes, scale)``, where the runtime has a kernel for such codes."""

    name: ClassVar[str] = "fused"
    says: ClassVar[str] = "decoded in the runtime's kernel"
    explains: ClassVar[str] = (
        "the codes go into the runtime's own compressed kernel: the weight stays small in memory too."
    )
    node_bytes: ClassVar[int] = 520
    rank: ClassVar[int | None] = 2
    packed: ClassVar[bool] = True

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        if weight.kinds != {"linear"}:
            return "the runtime has no compressed kernel for this layer"
        if len(weight.layers) > 1 or not all(layer.form_free for layer in weight.layers):
            return "the weight is shared, or read in a way that no compressed kernel takes"
        if fusible_as(encoding, weight.shape) is None or weight.dtype != "float32":
            return "the runtime has no compressed kernel for this format"
        return ""

    def cost(self, encoding: Encoding, shape: MatrixShape, costs: Costs) -> Cost | None:
        """Of the runtime's kernel."""
        assert isinstance(encoding, Blocked)
        return costs.anywhere(Way("fused", encoding.kind, encoding.block.columns, LEVEL))

    def pays(self, cost: Cost | None) -> bool:
        """Only where it was measured."""
        return cost is not None and super().pays(cost)

    def reason(self, cost: Cost | None) -> str:
        """See `Form.reason`."""
        return super().reason(cost) if cost else "the runtime's kernel was not measured for this target"

    def opset(self, encoding: Encoding, shape: MatrixShape) -> int:
        """That of the runtime's kernel."""
        row = fusible_as(encoding, shape)
        return super().opset(encoding, shape) if row is None else row.opset

    def part_bytes(self, encoding: Encoding, name: str, part: Part, shape: MatrixShape) -> int:
        """Zero points lie in the narrow type of the codes."""
        if name == "zero" and integers(encoding) is not None:
            return -(-prod(part.shape) * encoding.parts(shape)["codes"].bits // 8)
        return super().part_bytes(encoding, name, part, shape)


FUSED = FusedForm()
