"""What the driver knows of a framework: a model opened, run as its author wrote it, and written."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.model.carried import Carried, Corrections
from qcc.ir.model.options import ExternalData

G = TypeVar("G", bound=Graph)


@dataclass(frozen=True)
class Written:
    """What was written: the model file and, if its weights lie apart, the data file and its digest."""

    path: Path
    data: Path | None
    size_bytes: int
    data_sha256: str | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    """How many levels are left of weights that had more."""


@dataclass(frozen=True)
class Origin:
    """What a model says of where it comes from.

    Args:
        format: what its file is written in, for people.
        versions: the same for programs, each by its name.
        producer: who made it; empty if it does not say.
        notes: what it keeps beside, by key.
    """

    format: str
    versions: Mapping[str, object] = field(default_factory=dict)
    producer: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raised(Generic[G]):
    """A graph whose ops are those of a version.

    Args:
        graph: the same one where there was nothing to raise.
        changed: the types of the ops whose definitions differ.
        done: what was done, in words: "raising the model's opset from 13 to 21".
        help: how to do without.
    """

    graph: G
    changed: tuple[str, ...] = ()
    done: str = ""
    help: str = ""


class Model(ABC, Generic[G]):
    """A model of a framework as it came.

    The graph is what the stages of the driver work on; all else that depends on the framework is asked here.
    """

    @property
    @abstractmethod
    def graph(self) -> G:
        """As it came, not cleaned."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Of its files, or of its tensors where it lies in none."""

    @property
    @abstractmethod
    def origin(self) -> Origin:
        """Where it comes from."""

    @property
    def note_bytes(self) -> int:
        """Of what only people read, which is not written again."""
        return 0

    @property
    def data_files(self) -> tuple[str, ...]:
        """The files beside its own in which it keeps weights, as it names them."""
        return ()

    @abstractmethod
    def reference(self) -> Runner:
        """Runs the model as its author wrote it: what all else is held to.

        Raises:
            ModelError: the runtime refuses it.
        """

    def raised(self, graph: G, version: int) -> Raised[G]:
        """A graph of this model, with ops of a version at least, where a framework's ops have versions.

        Args:
            graph: left as it is.
            version: as `Form.opset` counts them.

        Raises:
            ModelError: an op has no equivalent there.
        """
        del version
        return Raised(graph)

    def newer(self, graph: G) -> str:
        """What a graph of this model asks of a runtime that the model did not, in words; empty where nothing."""
        del graph
        return ""

    @property
    def timed(self) -> bool:
        """Its files run in the runtime whose times policies bound and reports tell."""
        return True

    def check_place(self, path: Path, external: ExternalData = "auto", trimmed: bool = False) -> None:
        """See that a file of this name can hold what becomes of the model, before work is done on it.

        Args:
            path: of the file.
            external: whether large weights are to lie beside it.
            trimmed: levels of its weights are to be left out of it.

        Raises:
            ModelError: it is a name of another framework's files, or weights never lie beside such, or never in levels.
        """

    @abstractmethod
    def write(
        self,
        graph: G,
        path: Path,
        external: ExternalData | Path = "auto",
        notes: Mapping[str, str] | None = None,
        bare: bool = False,
    ) -> Written:
        """Write what became of the graph, all of it or nothing.

        Args:
            graph: whose weights may be encoded.
            path: of the file.
            external: whether large weights lie beside it, or the file in which they lie already.
            notes: what the file says of its origin.
            bare: leave out what only people read: names that no author gave.

        Raises:
            ModelError: the place cannot be written to, or there is no file that holds such a graph.
        """

    def giving(self, graph: G, carried: Sequence[Carried]) -> G:
        """The graph that also returns what later runs take.

        Raises:
            ModelError: graphs of this kind give nothing.
            Refused: there is no such value.
        """
        del graph, carried
        raise ModelError("Q575", "only ONNX models are cut for a step cache", "export the model first")

    def taking(self, graph: G, carried: Carried, corrections: Corrections | None) -> G:
        """The graph in which a value is what was carried over, corrected, instead of being computed.

        Raises:
            ModelError: graphs of this kind take nothing.
            Refused: there is no such value.
        """
        del carried, corrections
        return self.giving(graph, ())

    @abstractmethod
    def copy(self, path: Path, written: Path | None = None) -> Written:
        """Write the model as it came, byte for byte where it lies in a file.

        Args:
            path: of the copy, which gets data of its own.
            written: a file that `write` made, to be copied instead.

        Raises:
            OSError: it cannot be copied.
            ModelError: there is no file that holds it.
        """

    @abstractmethod
    def runner(self, written: Path, library: Path | None = None, providers: Sequence[str] = ()) -> Runner:
        """Runs a file that `write` made.

        Args:
            written: the file.
            library: of kernels that it calls.
            providers: of the runtime, as far as it has them; without any, the CPU's.

        Raises:
            ModelError: the runtime refuses it.
        """

    def emulation(self, written: Path) -> Runner:
        """Runs a file that `write` made so that each op of half precision rounds what it makes, on any runtime.

        Raises:
            ModelError: the runtime refuses it.
        """
        return self.runner(written)


AnyModel = Model[Any]
"""Of a framework that whoever holds it need not know."""
