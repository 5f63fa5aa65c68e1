"""The form that every encoding has: the weight is decoded when the session starts."""

from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Weight


class DecodedForm(Form):
    """``W  -->  decode(parts)``, of constants alone, so that the runtime folds it; all else stays as it was."""

    name: ClassVar[str] = "decoded"
    says: ClassVar[str] = "decoded at load"
    explains: ClassVar[str] = (
        "the weight is decoded once, when the session starts: small on disk, and the float model's speed and memory."
    )
    node_bytes: ClassVar[int] = 450
    rank: ClassVar[int | None] = 3

    def _refuses(self, weight: Weight, encoding: Encoding, rounded: bool) -> str:
        return ""


DECODED = DecodedForm()
