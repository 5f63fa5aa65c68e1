"""What is alive of values at a time, at most, where each is written once and goes behind its last reader."""

from collections.abc import Mapping

from qcc.compiler.work.count import Count


def peak_bytes(count: Count, size_bytes: Mapping[str, float]) -> float:
    """The most that values take together while an op runs, what it writes among them.

    What an op leaves where it was, or writes over, is one value under two names. What is fed is the caller's.

    Args:
        count: of a graph.
        size_bytes: of each value that is written.
    """
    place: dict[str, str] = {}
    for op in count.ops:
        if not count.writes(op):
            source = next((name for name in op.inputs if name in place or name in size_bytes), "")
            place |= {name: place.get(source, source) for name in op.outputs if name and source}
    last: dict[str, int] = {}
    for at, op in enumerate(count.ops):
        last |= {place.get(name, name): at for name in (*op.inputs, *op.outputs) if name}
    last |= {place.get(value.name, value.name): len(count.ops) for value in count.graph.outputs}
    alive, most = 0.0, 0.0
    ends: dict[int, float] = {}
    for at, op in enumerate(count.ops):
        for name in count.writes(op):
            size = size_bytes.get(name, 0.0)
            alive += size
            ends[last[place.get(name, name)]] = ends.get(last[place.get(name, name)], 0.0) + size
        most = max(most, alive)
        alive -= ends.pop(at, 0.0)
    return most
