"""Finding every attention of a graph, whatever its exporter made of it, and proving on drawn numbers what it computes.

Between a softmax and the two products beside it, and from those back to where queries, keys and values are made, ops
say what an attention should be. The graph is run once on a sample, which gives each value its sizes; then the part
between is run on drawn numbers of those sizes and compared with the formula. What differs is none.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from qcc.ir.attention.fused import of_cached, of_op, of_runtime
from qcc.ir.attention.part import AttentionPart, judged, of_core
from qcc.ir.attention.paths import Paths, UntoldError
from qcc.ir.attention.trace import Tracer, TraceStep
from qcc.ir.errors import ModelError
from qcc.ir.graph.attention import Attention, NotAttention
from qcc.ir.graph.graph import Graph, needed
from qcc.ir.graph.ops import Array, Feeds, Kind
from qcc.ir.kernel.cached_op import parse_cached

SEED = 0
_Held = tuple[tuple[str, str], ...]


def attentions(graph: Graph, sample: Feeds) -> list[Attention | NotAttention]:
    """Every attention in the order in which they run, and what looks like one and is none that can be told.

    Args:
        graph: the graph.
        sample: an input on which it runs; axes of different meaning should be of different sizes.

    Raises:
        ModelError: the graph does not run on it.
    """
    finder = _Finder(graph)
    found = finder.parts()
    parts = [one for one in found if isinstance(one, AttentionPart)]
    captured = _captured(graph, sample, parts)
    return [finder.judge(one, captured) if isinstance(one, AttentionPart) else one for one in found]


def attention_names(graph: Graph) -> tuple[str, ...]:
    """The names of what may be an attention, as far as ops tell; nothing is run."""
    return tuple(one.name for one in _Finder(graph).parts())


def cache_pairs(graph: Graph) -> dict[str, str]:
    """The inputs that hold keys and values of earlier runs, with the outputs that later ones take them from.

    As far as ops tell; nothing is run.
    """
    returned = {value.name for value in graph.outputs}
    found = {past: present for keys, values in _caches(graph) for past, present in (*keys, *values)}
    return {past: present for past, present in found.items() if present in returned}


def cache_sets(graph: Graph) -> dict[str, tuple[tuple[str, str], tuple[str, str]]]:
    """By the input that holds keys of earlier runs: that and what it is fed back from, and the same of values."""
    return {keys[0][0]: (keys[0], values[0]) for keys, values in _caches(graph) if keys and values}


def cache_names(graph: Graph) -> tuple[str, ...]:
    """The inputs that hold keys of earlier runs, by which caches go, as far as ops tell; nothing is run."""
    return tuple(dict.fromkeys(past for keys, _ in _caches(graph) for past, _ in keys))


def _caches(graph: Graph) -> Iterator[tuple[_Held, _Held]]:
    """The caches of keys and of values of each attention: inputs, and where rows and those before them are."""
    for one in _Finder(graph).parts():
        if isinstance(one, AttentionPart):
            yield _held(one.keys.steps), _held(one.values.steps)
        elif isinstance(one, Attention) and one.keys.past and one.values.past:
            yield ((one.keys.past, one.keys.present),), ((one.values.past, one.values.present),)


def _held(steps: Iterable[TraceStep]) -> _Held:
    return tuple((step.value, step.result) for step in steps if step.what == "past")[:1]


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._paths = Paths(graph, self._number)
        self._tracer = Tracer(graph, self._paths, self._number)
        self._returned = frozenset(value.name for value in graph.outputs)

    def _number(self, name: str) -> float | None:
        array = self._graph.constant(name) if name else None
        return (
            float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype.kind in "fiu" else None
        )

    def parts(self) -> list[AttentionPart | Attention | NotAttention]:
        """What may be an attention, and what is one or none by what it is called."""
        found = list[AttentionPart | Attention | NotAttention]()
        for op in self._paths.flow.ops:
            try:
                if op.kind is Kind.ATTENTION:
                    standard = op.function == "attention"
                    found.append(of_op(op, self._tracer) if standard else of_runtime(self._graph, op))
                elif (ours := parse_cached(op.function)) is not None:
                    found.append(of_cached(op, ours))
                elif op.kind is Kind.SOFTMAX and op.function == "softmax":
                    core = self._paths.core(op)
                    found += [] if core is None else [of_core(core, self._paths, self._tracer)]
            except UntoldError as error:
                found.append(NotAttention(op.name, str(error)))
        return found

    def judge(self, part: AttentionPart, captured: Mapping[str, Array]) -> Attention | NotAttention:
        """Run a part on drawn numbers and compare."""
        try:
            values = self._drawn(part, captured)
            return judged(part, values, captured, self._returned)
        except UntoldError as error:
            return NotAttention(part.name, str(error))
        except ModelError as error:
            return NotAttention(part.name, f"it does not run apart from the rest: {error}")
        except (ValueError, IndexError, ZeroDivisionError):
            return NotAttention(part.name, "its sizes do not fit an attention")

    def _drawn(self, part: AttentionPart, captured: Mapping[str, Array]) -> dict[str, Array]:
        """All values of a part, of drawn numbers at its borders."""
        draw = np.random.default_rng(SEED)
        known = {name: _numbers(draw, captured[name]) for name in part.borders}
        inner = dict.fromkeys((*part.inner, part.output, *part.behind))
        wanted = [name for name in inner if name not in known and self._graph.constant(name) is None]
        outside = needed(self._graph, wanted, known)
        fed = {value.name: captured[value.name] for value in self._graph.inputs if value.name in outside}
        feeds = {**fed, **{name: array for name, array in known.items() if name in outside}}
        free = [name for name in feeds if self._graph.constant(name) is not None]
        run = self._graph.runner([name for name in feeds if name not in free], wanted, free)
        return {**captured, **known, **run(feeds)}


def _numbers(draw: np.random.Generator, like: Array) -> Array:
    """Numbers in the place of some: floats are normal, and of what may hide something the first column is seen."""
    if like.dtype == bool:
        drawn = draw.random(like.shape) < 0.7
        if drawn.ndim:
            drawn[..., 0] = True
        return np.asarray(drawn)
    return draw.standard_normal(like.shape).astype(like.dtype) if like.dtype.kind == "f" else like


def _captured(graph: Graph, sample: Feeds, parts: Iterable[AttentionPart]) -> dict[str, Array]:
    """Every value of some parts, as the sample gives it."""
    names = dict.fromkeys(name for part in parts for name in (*part.names, part.output))
    stored = {name: array for name in names if (array := graph.constant(name)) is not None}
    wanted = [name for name in names if name not in sample and name not in stored]
    return {**sample, **stored, **(graph.runner(list(sample), wanted)(sample) if wanted else {})}
