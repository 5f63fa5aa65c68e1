"""The form of embeddings: the packed rows that are asked for are gathered, and only those are decoded."""

from math import prod
from typing import ClassVar

import numpy as np

from qcc.ir.encoding.algebra import Encoding, MatrixShape, Part
from qcc.ir.encoding.packing import packed_bytes
from qcc.ir.forms.decoded import DECODED
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight


class RowsForm(Form):
    """``Gather(W, ids)  -->  decode(Gather(parts, ids))``; other layers that read the table share it.

    Nothing else is as small in memory, so the form is taken wherever it can be.
    """

    name: ClassVar[str] = "rows"
    says: ClassVar[str] = "decoded row by row"
    explains: ClassVar[str] = (
        "of an embedding: the packed rows that are asked for are gathered, and only those are decoded."
    )
    node_bytes: ClassVar[int] = 1000
    rank: ClassVar[int | None] = 1
    competes: ClassVar[bool] = False

    def concerns(self, weight: Weight) -> bool:
        """It is read by an embedding, whatever else reads it."""
        return "embedding" in weight.kinds

    def _refuses(self, weight: Weight, encoding: Encoding) -> str:
        if not self.concerns(weight):
            return "only embeddings are read by rows"
        return "" if encoding.rows_apart else "rows cannot be decoded one by one: they share scales"

    def reason(self, cost: object) -> str:
        """See `Form.reason`."""
        return "packed rows are gathered, then decoded"

    @property
    def alone(self) -> Form:
        """A linear layer that shares the table decodes all of it."""
        return DECODED

    def part_bytes(self, encoding: Encoding, name: str, part: Part, shape: MatrixShape) -> int:
        """Each row's codes fill whole units."""
        if part.dtype is np.uint8 and (part.apart or part.is_of_rows(shape[0])):
            return part.shape[0] * packed_bytes(prod(part.shape[1:]), part.bits)
        return super().part_bytes(encoding, name, part, shape)


ROWS = RowsForm()
