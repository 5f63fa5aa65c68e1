"""How what is multiplied with an encoded weight is rounded."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from qcc.ir.encoding.value import EncodedValue, ValueEncoding
from qcc.ir.graph.form import Form
from qcc.passes.contract.contract import Rewrite
from qcc.passes.contract.magnitudes import Magnitudes


class Activations(ABC):
    """A way to round what is multiplied with an encoded weight: the values of the rule property ``activations``."""

    property: ClassVar[str] = "activations"
    option_kind: ClassVar[str] = "method"
    when: ClassVar[Literal["static", "dynamic"]]  # steps are known, as `ValueEncoding` has it

    def knows_first(self) -> bool:
        """It is promised that first tokens are always those of the calibration data."""
        return False

    def before(self) -> Rewrite | None:
        """What must be done to the graph first, at the layers that are rounded so."""
        return None

    def of_one_token(self) -> "Activations":
        """How a token is rounded that is no exception."""
        return self

    @abstractmethod
    def encoding(self, form: Form) -> ValueEncoding:
        """How the values around layers are encoded whose weight has this form."""

    @abstractmethod
    def encoded(self, encoding: ValueEncoding, magnitudes: Magnitudes | None) -> EncodedValue:
        """The encoding of values of these magnitudes, which are there where steps are static.

        Raises:
            Refused: there is none.
        """
