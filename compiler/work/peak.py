"""What is alive of values at a time, at most, where each is written once and goes behind its last reader."""

from collections.abc import Mapping

from qcc.compiler.work.count import Count


def moments(count: Count) -> list[frozenset[str]]:
    """The written values that are alive while each op runs, what it writes among them.

    What an op leaves where it was, or writes over, is one value under two names. What is fed is the caller's.
    """
    place: dict[str, str] = {}
    written = {name for op in count.ops for name in count.writes(op)}
    for op in count.ops:
        if not count.writes(op):
            source = next((name for name in op.inputs if name in place or name in written), "")
            place |= {name: place.get(source, source) for name in op.outputs if name and source}
    last: dict[str, int] = {}
    for at, op in enumerate(count.ops):
        last |= {place.get(name, name): at for name in (*op.inputs, *op.outputs) if name}
    last |= {place.get(value.name, value.name): len(count.ops) for value in count.graph.outputs}
    alive, found = set[str](), list[frozenset[str]]()
    ends: dict[int, set[str]] = {}
    for at, op in enumerate(count.ops):
        for name in count.writes(op):
            alive.add(name)
            ends.setdefault(last[place.get(name, name)], set()).add(name)
        found.append(frozenset(alive))
        alive -= ends.pop(at, set())
    return found


def peak_bytes(count: Count, size_bytes: Mapping[str, float]) -> float:
    """The most that values take together while an op runs.

    Args:
        count: of a graph.
        size_bytes: of each value that is written.
    """
    return max((sum(size_bytes.get(name, 0.0) for name in alive) for alive in moments(count)), default=0.0)
