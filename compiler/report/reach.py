"""What becomes of every byte of a model: which lie in weights that are encoded, and why the others do not."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import LAYER_KINDS, Array, Kind, Op

SHOWN = 5
LEFT = "graph and names"
NOTES = "notes of nodes, left out"
KEPT = "weights kept"
GIVEN = "weights kept compressed, as they came"
_ADDED = "biases and norms"
_WHOLE = "whole numbers and codes"


@dataclass(frozen=True)
class Reach:
    """The bytes of a model's files.

    Args:
        total_bytes: of the files.
        reached_bytes: in weights that are encoded, or could be.
        rest: the other bytes by the reason, the most first.
    """

    total_bytes: int
    reached_bytes: int
    rest: tuple[tuple[str, int], ...]

    @property
    def lines(self) -> list[str]:
        """How many, and why not the others."""
        share = self.reached_bytes / max(self.total_bytes, 1)
        more = sum(size for _, size in self.rest[SHOWN:])
        parts = [f"{size:,} {reason}" for reason, size in self.rest[:SHOWN]] + ([f"{more:,} others"] if more else [])
        found, line = [f"{self.reached_bytes:,} of {self.total_bytes:,} bytes, {share:.1%}"], ""
        for at, part in enumerate(parts):
            part = ("not: " if at == 0 else "") + part + (";" if at < len(parts) - 1 else "")
            if line and len(line) + len(part) > 68:
                found.append(line)
                line = part
            else:
                line = f"{line} {part}".strip()
        return [*found, line] if line else found


def reach(graph: Graph, file_bytes: int, note_bytes: int = 0, kept: Collection[str] = ()) -> Reach:
    """What is reached of a cleaned model.

    Args:
        graph: the model.
        file_bytes: of its files as they came.
        note_bytes: of what only people read.
        kept: the names of weights that stay as they are.
    """
    reasons = dict(_reasons(graph, kept))
    given = {weight.constant: weight.size_bytes for weight in graph.weights() if weight.given is not None}
    reached, rest = 0, Counter[str]()
    for name, reason in reasons.items():
        size = given[name] if name in given else _bytes(graph, name)
        reached += 0 if reason else size
        rest[reason or LEFT] += size if reason else 0
    rest[NOTES] = note_bytes
    rest[LEFT] += max(file_bytes - reached - sum(rest.values()), 0)
    ordered = sorted(((one, size) for one, size in rest.items() if size), key=lambda pair: (-pair[1], pair[0]))
    return Reach(file_bytes, reached, tuple(ordered))


def _bytes(graph: Graph, name: str) -> int:
    array = graph.constant(name)
    return 0 if array is None else array.nbytes


def _reasons(graph: Graph, kept: Collection[str]) -> Iterator[tuple[str, str]]:
    """Each constant with the reason why it is not encoded; those of weights last, so that they count as such."""
    biases = {layer.bias for weight in graph.weights() for layer in weight.layers}
    for op in graph.ops():
        for name in op.inputs:
            array = graph.constant(name) if name else None
            if array is not None:
                yield name, _codes(op) if is_codes(array) else _reason(op, name in biases, array.dtype.kind in "fV")
    for weight in graph.weights():
        stays = GIVEN if weight.given is not None else KEPT
        yield weight.constant, stays if weight.name in kept else ""


def is_codes(array: Array) -> bool:
    """A constant is codes of several channels, of a byte or less each."""
    return array.ndim > 1 and array.dtype.itemsize == 1 and array.dtype.kind in "iuV"


def _codes(op: Op) -> str:
    return f"codes read by {op.function}"


def _reason(op: Op, bias: bool, real: bool) -> str:
    if not real:
        return _WHOLE
    if bias or op.kind is Kind.NORM or op.kind in LAYER_KINDS:
        return _ADDED
    return f"in bodies of {op.function}" if op.function in ("If", "Loop", "Scan") else f"read by {op.function}"
