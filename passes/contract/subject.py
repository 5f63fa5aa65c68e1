"""Passes that store what is no layer in another way."""

from abc import abstractmethod
from typing import ClassVar

from qcc.ir.encoding.algebra import Encoding
from qcc.passes.contract.contract import Invariant, Pass, Phase


class SubjectPass(Pass):
    """A pass that stores what is no layer in another way, whose fields are properties of rules about its ``subjects``.

    ``rule cache { keys = int8 channel }`` becomes `Cache` with these keys; targets are names of subjects.
    """

    phase: ClassVar[Phase] = Phase.ENCODE
    keeps: ClassVar[frozenset[Invariant]] = frozenset((Invariant.WEIGHTS, Invariant.SHAPES))
    after: ClassVar[tuple[str, ...]] = ("clean",)
    subjects: ClassVar[tuple[str, ...]]
    wants: ClassVar[str]
    """A setting without which a rule about them says nothing."""
    weighed: ClassVar[bool] = False
    """Several formats may be named, of which an integer program chooses by what they lose."""
    learned: ClassVar[str]
    """What data decides of, in words."""

    @property
    @abstractmethod
    def opset(self) -> int:
        """The lowest that has its ops."""

    @property
    @abstractmethod
    def nothing(self) -> bool:
        """It leaves its subjects as they are."""

    @property
    @abstractmethod
    def learns(self) -> bool:
        """Data decides what is stored."""

    @classmethod
    def refuses(cls, encoding: Encoding) -> str:  # noqa: ARG003 - of those that store something
        """Why its subjects are not stored in an encoding; empty if they are."""
        return ""
