"""Products with blocks of float32 that are stored alone: tiles that stay, by rows of tiles.

Some neighbours of a tile are multiplied at once (`vector_of`): outputs, whose weights for one input then lie together,
``w [kept, rows / lanes, columns, lanes]``; or inputs, ``w [kept, rows, columns]``, whose products are added up at the
end. ``starts [down + 1]`` tells of each row of tiles where its tiles begin among those that are kept, and ``places
[kept]`` at which tile of the inputs each stands. Nothing that is gone is looked at, nor stored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product as pairs

from qcc.codegen.tir import emit
from qcc.codegen.tir.emit import LANES, Expr, T
from qcc.ir.kernel.op import Tile, vector_of

POINTERS = {"x": "float32", "w": "float32", "starts": "int32", "places": "int32"}
SCALARS = ("groups", "inputs", "stride", "first", "count")
UNROLLED = 4  # steps at a time; more make the loop too long
BUSY = 64  # sums that are added to in turn, so that no addition waits for the one before


@dataclass(frozen=True)
class BlockWalk:
    """How a tile is walked through: ``parts``, each of so many ``steps`` of ``lanes`` products.

    Args:
        tile: outputs and inputs.
        lanes: neighbours that are multiplied at once.
        outputs: these are outputs, else inputs.
    """

    tile: Tile
    lanes: int
    outputs: bool

    @property
    def parts(self) -> int:
        """Of one row of tiles, each with sums of its own."""
        return self.tile[0] // self.lanes if self.outputs else self.tile[0]

    @property
    def steps(self) -> int:
        """Of a part of a tile."""
        return self.tile[1] if self.outputs else self.tile[1] // self.lanes

    @property
    def values(self) -> int:
        """Inputs of a step."""
        return 1 if self.outputs else self.lanes

    def place(self, kept: Expr, output: Expr, value: Expr) -> Expr:
        """Where the weight of one output and input of a kept tile lies."""
        start = kept * (self.tile[0] * self.tile[1])
        if not self.outputs:
            return start + output * self.tile[1] + value
        lanes = T.int64(self.lanes)
        return start + (T.truncdiv(output, lanes) * self.tile[1] + value) * lanes + T.truncmod(output, lanes)


def product(name: str, tile: Tile, rows: int, room: int = 0, group_rows: int = 0) -> Expr:
    """A function ``(x, w, starts, places, y, groups, inputs, stride, first, count)``.

    It fills ``y`` for so many groups of rows, and for ``count`` rows of tiles from the ``first`` one on. Rows
    of ``x`` are ``inputs`` apart, those of ``y`` ``stride``.

    Args:
        name: of the function.
        tile: outputs and inputs.
        rows: that are multiplied at once.
        room: for sums in registers; where there is some, neighbouring parts of a tile share what is read of ``x``.
        group_rows: a multiple of ``rows``; these by default.
    """
    found = vector_of(tile)
    assert found is not None
    walk = BlockWalk(tile, found[0], found[1] == 0)
    lanes = walk.lanes
    most = room // (rows * lanes) if walk.outputs else 1
    beside = next(size for size in (4, 2, 1) if size <= max(most, 1) and walk.parts % size == 0)
    with emit.function(name) as builder:
        x, w, starts, places, y, groups, inputs, stride, first, count = emit.arguments(POINTERS, SCALARS, unaligned="x")
        groups = groups * max(group_rows // rows, 1)
        with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(walk.parts // beside)) as some:
                parts = [some * beside + one for one in range(beside)]
                ways = max(1, BUSY // (rows * beside * lanes))
                sums = [emit.accumulators(rows * beside, lanes=lanes) for _ in range(ways)]
                for way in sums:
                    emit.clear(way)

                def step(kept: Expr, at: Expr, way: list[Expr]) -> None:
                    """One step of some parts of a kept tile."""
                    here = [((kept * walk.parts + part) * walk.steps + at) * lanes for part in parts]
                    weights = [T.bind(w[emit.lanes(place, lanes)]) for place in here]
                    start = T.Cast("int64", places[kept]) * tile[1] + at * walk.values
                    for of in range(rows):
                        place = (group * rows + of) * inputs + start
                        read = T.bind(emit.spread(x[place], lanes) if walk.outputs else x[emit.lanes(place, lanes)])
                        for part, weight in enumerate(weights):
                            emit.add(way[of * beside + part], weight * read)

                _walk(begin, end, walk.steps, sums, step)
                for of, part in pairs(range(rows), range(beside)):
                    value = emit.get(sums[0][of * beside + part])
                    for way in sums[1:]:
                        value = value + emit.get(way[of * beside + part])
                    place = (group * rows + of) * stride + row * tile[0]
                    if walk.outputs:
                        T.buffer_store(y, value, [emit.lanes(place + parts[part] * lanes, lanes)])
                    else:
                        T.buffer_store(y, emit.total(value, lanes), [place + parts[part]])
    return builder.get()


def _walk(
    begin: Expr, end: Expr, steps: int, sums: list[list[Expr]], step: Callable[[Expr, Expr, list[Expr]], None]
) -> None:
    """Go through all steps of the tiles from ``begin`` to ``end``, some of a tile or of several tiles at a time."""
    together = next(size for size in range(UNROLLED, 0, -1) if steps % size == 0)
    if together > 1:
        with T.serial(begin, end) as kept, T.serial(T.int64(0), T.int64(steps // together)) as some:
            for one in range(together):
                step(kept, some * together + one, sums[one % len(sums)])
        return
    whole = T.bind(T.truncdiv(end - begin, T.int64(UNROLLED)))
    with T.serial(T.int64(0), whole) as some, T.serial(T.int64(0), T.int64(steps)) as at:
        for one in range(UNROLLED):
            step(begin + some * UNROLLED + one, at, sums[one % len(sums)])
    with T.serial(begin + whole * UNROLLED, end) as kept, T.serial(T.int64(0), T.int64(steps)) as at:
        step(kept, at, sums[0])


def panels(name: str, tile: Tile) -> Expr:
    """A function of the arguments of `product` for groups of 16 rows side by side, ``x [groups, inputs, 16]``.

    It reads weights one by one, as they are packed for `product`, so that it suits tiles in which few lie together.
    """
    found = vector_of(tile)
    assert found is not None
    walk = BlockWalk(tile, found[0], found[1] == 0)
    beside = next(size for size in (4, 2, 1) if tile[0] % size == 0)  # outputs that share what is read of x
    with emit.function(name) as builder:
        x, w, starts, places, y, groups, inputs, stride, first, count = emit.arguments(POINTERS, SCALARS)
        with T.serial(T.int64(0), groups) as group, T.serial(T.int64(0), count) as row:
            begin = T.bind(T.Cast("int64", starts[first + row]))
            end = T.bind(T.Cast("int64", starts[first + row + 1]))
            with T.serial(T.int64(0), T.int64(tile[0] // beside)) as part:
                sums = [emit.accumulators(beside) for _ in range(max(1, 4 // beside))]
                for way in sums:
                    emit.clear(way)

                def step(kept: Expr, at: Expr, way: list[Expr]) -> None:
                    """One input of some outputs of a kept tile."""
                    place = T.Cast("int64", places[kept]) * tile[1] + at
                    read = T.bind(x[emit.lanes((group * inputs + place) * LANES)])
                    for of in range(beside):
                        emit.add(way[of], emit.spread(w[walk.place(kept, part * beside + of, at)]) * read)

                _walk(begin, end, tile[1], sums, step)
                for of in range(beside):
                    value = emit.get(sums[0][of])
                    for way in sums[1:]:
                        value = value + emit.get(way[of])
                    emit.put(sums[0][of], value)
                    for lane in range(LANES):
                        place = (group * LANES + lane) * stride + row * tile[0] + part * beside + of
                        T.buffer_store(y, sums[0][of][lane], [place])
    return builder.get()
