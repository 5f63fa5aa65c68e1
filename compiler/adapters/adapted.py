"""A model with adapters in its weights: to all that follows, a model as it came."""

# ruff: noqa: D102 - the face documents the methods that it asks for

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qcc.compiler.adapters.merge import MergedAdapter, merge_adapters
from qcc.compiler.adapters.prefix import PrefilledCache
from qcc.dsl.policy.policy import Policy
from qcc.ir.adapters.read import AdapterSource
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Feeds
from qcc.ir.model.model import G, Model, Origin, Raised, Written
from qcc.ir.model.options import ExternalData

SampleMaker = Callable[[Graph, Runner], Feeds]


def adapter_sources(policy: Policy) -> tuple[AdapterSource, ...]:
    """The adapters that a policy names."""
    return tuple(AdapterSource(Path(one.path), one.name, one.scale, one.alpha, one.only) for one in policy.adapters)


class AdaptedModel(Model[G]):
    """A model whose weights are what some adapters make of them.

    Args:
        base: the model as it lies in its file.
        sources: the adapters.
        sample: makes inputs of a graph on which a runner of it runs; without it a prefix is refused.

    Raises:
        ModelError: see `merge_adapters`.
    """

    def __init__(self, base: Model[G], sources: tuple[AdapterSource, ...], sample: SampleMaker | None = None) -> None:
        self._base, self._sources, self._sample = base, sources, sample
        self._graph = base.graph.copy()
        made = (lambda: sample(self._graph, base.reference())) if sample is not None else None
        self.merged: tuple[MergedAdapter, ...] = merge_adapters(self._graph, sources, made)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process reads the files."""
        return AdaptedModel, (self._base, self._sources, self._sample)

    @property
    def cache(self) -> PrefilledCache | None:
        """What a prefix comes to, where there is one."""
        return next((one.cache for one in self.merged if one.cache is not None), None)

    @property
    def graph(self) -> G:
        return self._graph

    @property
    def size_bytes(self) -> int:
        return self._base.size_bytes

    @property
    def origin(self) -> Origin:
        return self._base.origin

    @property
    def note_bytes(self) -> int:
        return self._base.note_bytes

    @property
    def data_files(self) -> tuple[str, ...]:
        return self._base.data_files

    @property
    def timed(self) -> bool:
        return self._base.timed

    def reference(self) -> Runner:
        return self._graph.runner([one.name for one in self._graph.inputs], [one.name for one in self._graph.outputs])

    def raised(self, graph: G, version: int) -> Raised[G]:
        return self._base.raised(graph, version)

    def check_place(self, path: Path, external: ExternalData = "auto", trimmed: bool = False) -> None:
        self._base.check_place(path, external, trimmed)

    def write(
        self,
        graph: G,
        path: Path,
        external: ExternalData | Path = "auto",
        notes: Mapping[str, str] | None = None,
        bare: bool = False,
    ) -> Written:
        return self._base.write(graph, path, external, notes, bare)

    def copy(self, path: Path, written: Path | None = None) -> Written:
        """The adapters are in no file yet: the graph is written where nothing was."""
        return self._base.copy(path, written) if written is not None else self._base.write(self._graph, path)

    def runner(self, written: Path, library: Path | None = None, providers: Sequence[str] = ()) -> Runner:
        return self._base.runner(written, library, providers)
