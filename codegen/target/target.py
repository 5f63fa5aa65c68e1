"""What a target is: where a model is to run, and all that is known of running it there.

A target is a folder of `qcc.codegen` with a module ``target``, in which stands a class that derives from `Target`;
nothing registers it. The language learns the names from it, forms are chosen by its capability data, and where it has
templates it builds libraries of kernels. Whoever compiles asks the object, and nothing else.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from qcc.codegen.target.ceiling import CeilingError, Ceilings
from qcc.codegen.target.digest import digest
from qcc.codegen.target.errors import BuildError, TargetError
from qcc.ir.graph.costs import CapabilityTable, Costs
from qcc.ir.kernel.kernel_op import KernelOp

Arithmetic = Literal["bf16", "int8", "exact"]
"""How kernels round what they multiply, as `export { activations = ... }` spells it."""
Ticker = Callable[[int, int, str], None]
NATIVE = "native"
"""The word for the processor of this machine."""
CPU = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class Processor(ABC):
    """What kernels can be made for, by the name that a policy gives in the target's parentheses."""

    name: str

    @property
    @abstractmethod
    def obstacle(self) -> str:
        """Why what is made for it would not run on this machine; empty if it would."""

    @property
    def instructions(self) -> str:
        """What it is told apart by in the capability data; empty where it has no table."""
        return self.name

    @property
    def adds_bytes_exactly(self) -> bool:
        """The runtime's products of two bytes are added up in 32 bits, so that none saturates."""
        return False

    @property
    def facts(self) -> Mapping[str, str | list[str]]:
        """What a list tells of it beside its name."""
        return {}


P = TypeVar("P", bound=Processor)


class Template(ABC, Generic[P]):
    """A way to make kernels. Outside of its target nothing is known of it but what it serves."""

    name: ClassVar[str]

    @abstractmethod
    def serves(self, op: KernelOp, processor: P, activations: Arithmetic) -> bool:
        """It makes such an op for a processor, rounding activations as asked for at most."""


@dataclass(frozen=True)
class KernelBound:
    """What a kernel is held to: the ceiling of the instruction that it multiplies by; it may round what it reads."""

    ceiling: str
    rounds: bool


@dataclass(frozen=True)
class Library:
    """A library of kernels that was built.

    Args:
        path: the file.
        served: the ops that it was built to take, by processor, the best first.
    """

    path: Path
    served: tuple[tuple[Processor, frozenset[KernelOp]], ...]

    @property
    def here(self) -> frozenset[KernelOp]:
        """The ops that it should take on this machine."""
        return next((ops for processor, ops in self.served if not processor.obstacle), frozenset())


class Target(ABC, Generic[P]):
    """A target; the first line of its docstring is what lists tell of it."""

    name: ClassVar[str]
    """As a policy spells it."""
    default: ClassVar[bool] = False
    """It is meant where a policy names none."""
    providers: ClassVar[tuple[str, ...]] = CPU
    """The execution providers of ONNX Runtime that run what is compiled for it."""
    maker: ClassVar[str] = ""
    """What makes its kernels, as `export { kernels = ... }` asks for it; empty where it makes none."""
    stages: ClassVar[tuple[str, ...]] = ()
    """What its kernels can be shown as (`show`)."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions decide what is built, beside qcc's own."""
    headings: ClassVar[Mapping[str, str]] = {}
    """Of the `Processor.facts` that a table shows."""
    timed: ClassVar[bool] = True
    """What a model takes here is what it takes there."""
    one_word: ClassVar[bool] = False
    """One word stands in its parentheses, and no less."""
    joins: ClassVar[bool] = False
    """Its kernels take several products of one input as one op."""
    has_ceilings: ClassVar[bool] = False
    """What this machine can do at most can be measured."""

    @property
    def summary(self) -> str:
        """What lists tell of it."""
        return (inspect.getdoc(type(self)) or "").partition("\n")[0].rstrip(".")

    @property
    @abstractmethod
    def capabilities(self) -> Mapping[str, CapabilityTable]:
        """What layers were measured to cost in each form, by the `Processor.instructions`."""

    @property
    def processors(self) -> tuple[P, ...]:
        """What kernels can be made for, the best last."""
        return ()

    @property
    def templates(self) -> tuple[Template[P], ...]:
        """The ways to make kernels; none where all is left to the runtime."""
        return ()

    @property
    def words(self) -> tuple[str, ...]:
        """What may stand in its parentheses."""
        return (NATIVE, *(one.name for one in self.processors)) if self.processors else ()

    def native(self) -> P:
        """The processor that this machine is.

        Raises:
            TargetError: it is none of the target's.
        """
        found = next((one for one in reversed(self.processors) if not one.obstacle), None)
        if found is None:
            raise TargetError(f"no native target: this machine is no processor of `{self.name}`")
        return found

    def named(self, names: Iterable[str]) -> tuple[P, ...]:
        """The processors of these names.

        Raises:
            TargetError: one is unknown.
        """
        known = {one.name: one for one in self.processors}
        names = tuple(names)
        for name in names:
            if name not in known:
                raise TargetError(f"unknown target `{name}`; known are {', '.join(self.words) or 'none'}")
        return tuple(known[name] for name in names)

    def chosen(self, words: Collection[str]) -> tuple[str, ...]:
        """The names of the processors that stand in the parentheses; without any, of this machine's.

        Raises:
            TargetError: one is unknown, this machine is none, or they do not go together.
        """
        names = (self.native().name if word == NATIVE else word for word in words or (NATIVE,))
        found = tuple(dict.fromkeys(names))
        self.check(self.named(found))
        return found

    def check(self, processors: tuple[P, ...]) -> None:
        """See that one library can be for all of these.

        Raises:
            TargetError: it cannot.
        """

    def rounding_forms(self, words: Collection[str]) -> frozenset[str]:
        """The names of the forms in which weights are multiplied as integers; empty where all that are general are."""
        return frozenset()

    def faults(self, words: Collection[str], path: Path) -> list[str]:
        """What is wrong for it with a file that was written, a line each."""
        return []

    def at_hand(self, words: Collection[str]) -> bool:
        """What stands in the parentheses means this machine, so that its clock may decide."""
        return not words or NATIVE in words

    def runs_here(self, names: Iterable[str]) -> bool:
        """What is made for these processors runs on this machine."""
        return any(not one.obstacle for one in self.named(names))

    def costs(self, names: Iterable[str] = (), activations: Arithmetic | Literal[""] = "") -> Costs:
        """What forms cost on processors; anywhere, where none is named."""
        instructions = dict.fromkeys(one.instructions for one in self.named(names))
        return Costs(self.capabilities, tuple(instructions), activations)

    def served(self, ops: Iterable[KernelOp], processor: P, activations: Arithmetic) -> list[KernelOp]:
        """The ops that there is a template for."""
        return [op for op in ops if any(one.serves(op, processor, activations) for one in self.templates)]

    def serves(self, op: KernelOp, names: Iterable[str], activations: Arithmetic) -> bool:
        """There is a template for the op on one of these processors."""
        return any(self.served([op], one, activations) for one in self.named(names))

    def build(
        self, ops: Iterable[KernelOp], names: Collection[str], out: Path, activations: Arithmetic, fresh: bool = False
    ) -> Library:
        """Write the library that serves ops to ``out``, from the cache if it was built before.

        Args:
            ops: in any order.
            names: of processors, the best first: a library uses what was made for the first that this machine is.
            out: the file to write, replaced at once.
            activations: how kernels round what they multiply, at most.
            fresh: build it even where it was built before.

        Raises:
            BuildError: something that makes kernels is missing, or failed.
            TargetError: no library can be for these processors.
        """
        processors, wanted = self.named(names), sorted(set(ops), key=lambda op: op.name)
        if not wanted or not processors:
            raise BuildError("there are no kernels to build")
        self.check(processors)
        self.make(tuple(wanted), processors, out, activations, fresh)
        return Library(out, tuple((one, frozenset(self.served(wanted, one, activations))) for one in processors))

    def make(
        self, ops: tuple[KernelOp, ...], processors: tuple[P, ...], out: Path, activations: Arithmetic, fresh: bool
    ) -> None:
        """Write the file of `build`: ops are sorted, each once."""
        raise BuildError(f"`{self.name}` has no kernels")

    def show(self, stage: str, ops: Iterable[KernelOp], names: Iterable[str], activations: Arithmetic) -> str:
        """What a library is made of, as text, in one of `stages`.

        Raises:
            BuildError: something that makes kernels is missing.
        """
        raise BuildError(f"`{self.name}` has no stage `{stage}`")

    def digest(self) -> str:
        """A hash of all of qcc that decides what is built: what all targets share, and the target's own folder."""
        return digest(Path(inspect.getfile(type(self))).parent)

    def ceilings(self) -> Ceilings | None:
        """What this machine was measured to do at most."""
        return None

    def bound(self, op: KernelOp, rows: int, activations: Arithmetic = "bf16") -> KernelBound | None:
        """What this machine's kernel for an op is bound by at so many rows; None where it has none."""
        return None

    def measure_ceilings(self, tick: Ticker) -> Ceilings:
        """Measure it, and keep it.

        Args:
            tick: told how much is done, of how much, and what is next.

        Raises:
            CeilingError: it cannot be measured.
            TargetError: nothing is known of this machine.
        """
        raise CeilingError(f"`{self.name}` has no ceilings to measure")


AnyTarget = Target[Any]
