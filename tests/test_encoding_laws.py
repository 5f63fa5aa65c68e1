"""The law of encodings: a file computes what `decode` says, and holds the bytes that the parts say."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, PLAIN_NAMES, Blocked, scales
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.formats.composed.bands import Bands
from qcc.ir.encoding.formats.composed.blocks import Sparse
from qcc.ir.encoding.formats.composed.codebook import Codebook
from qcc.ir.encoding.formats.composed.frequent import OftenAsked
from qcc.ir.encoding.formats.composed.graph import Together
from qcc.ir.encoding.formats.composed.kmeans import Nearby
from qcc.ir.encoding.formats.composed.lattice import Lattice
from qcc.ir.encoding.formats.composed.low_rank import LowRank
from qcc.ir.encoding.formats.composed.merged import Merged
from qcc.ir.encoding.formats.composed.nothing import Nothing
from qcc.ir.encoding.formats.composed.radix import DIGITS, Radix
from qcc.ir.encoding.formats.composed.scattered import ShareOfRow, SomeOfEvery
from qcc.ir.encoding.formats.composed.signs import Signs
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.formats.composed.structured import BlockProducts
from qcc.ir.encoding.grid import FLOATS, Grid, IntGrid, TableGrid, tables
from qcc.ir.encoding.packing import UNIT
from qcc.ir.errors import Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.rows import ROWS
from tests import onnx_models
from tests.onnx_models import Case

GRIDS: list[Grid] = [
    *(IntGrid(bits, symmetric) for bits in (2, 3, 4, 5, 8) for symmetric in (True, False)),
    IntGrid(1, symmetric=False),
    *(TableGrid(name) for name in tables() if TableGrid(name).lowest < 0),
]
BLOCKS = (TENSOR, CHANNEL, group(32), group(24), Block(4, 8))
PLAIN = [Blocked(grid, scale=None) for grid in FLOATS.values()]
INT4, BINARY, NF4 = Blocked(IntGrid(4), group(32)), Blocked(TableGrid("int1"), group(32)), Blocked(TableGrid("nf4"))
TREES: list[Encoding] = [
    Stack((BINARY,) * 3),
    Stack((NF4, Blocked(TableGrid("int1"), CHANNEL, "e8m0"))),
    Stack((INT4, LowRank(4, 0.0, Blocked(FLOATS["fp16"], scale=None)))),
    LowRank(0, 0.25, Blocked(IntGrid(8))),
    BlockProducts(4, 4, 2, True, Blocked(IntGrid(8))),
    BlockProducts(2, 1, 3, False, INT4),
    Stack((INT4, BlockProducts(4, 4, 1, True, Blocked(FLOATS["fp16"], scale=None)))),
    Signs(),
    Stack((Signs(3), Signs())),
    Bands((INT4, BINARY), 0.25),
    Bands((Blocked(IntGrid(3, False), group(8)), NF4), 0.5),
    Bands((INT4, Blocked(IntGrid(2)), BINARY, Nothing()), average=1.8),
    Bands((NF4, Blocked(IntGrid(2), group(32)), BINARY), average=2.0),
    Nothing(),
    Sparse(4, 8, 0.5, INT4, "wanda", 4),
    Sparse(4, 8, 0.25, Blocked(TableGrid("fp4"), group(32), "e8m0")),
    Sparse(4, 8, 0.5, Stack((BINARY, BINARY))),
    SomeOfEvery(INT4, "obs", 5, 2, 4),
    SomeOfEvery(FLOAT32, "obs", 0, 3, 5),
    ShareOfRow(Blocked(TableGrid("fp4"), group(32), "e8m0"), "obs", 0, 0.25),
    ShareOfRow(Stack((BINARY, BINARY)), "obs", 0, 1.0),
    Codebook(16),
    *(Radix(levels) for levels in DIGITS),
    Bands((INT4, Radix(3, 24)), 0.25),
    Codebook(64, 2, 24),
    Codebook(256, 4),
    Stack((Codebook(4, 8, 16), BINARY)),
    Merged(Nearby(0.5)),
    Merged(Nearby(0.25, "pairs.npz", 0.5), INT4),
    Merged(Together("pairs.npz"), Stack((INT4, LowRank(2, 0.0, NF4)))),
    Merged(OftenAsked(0.3, seen="pairs.npz"), Blocked(IntGrid(3, False), TENSOR)),
    Merged(OftenAsked(least=2, seen="pairs.npz", within=0.5), Bands((INT4, BINARY), 0.25)),
    Merged(Nearby(0.02), Blocked(IntGrid(3), TENSOR, "e4m3"), "expand"),
    Stack((Merged(Nearby(0.5), Merged(Nearby(0.5), INT4)), Blocked(IntGrid(2)))),
    Lattice(),
    Lattice(24),
]
SHAPES = ((40, 64), (12, 88), (7, 33))
TOLERANCE = 1e-5  # of the largest number: sums of up to 88 products in another order


def case(form: str, out: int, inner: int) -> Case:
    """A layer whose weight is a matrix ``[out, in]``, or lies transposed or as filters in the file."""
    random = onnx_models.random
    if form == "rows":
        ids = np.array([[0, out - 1, 1], [2, 2, -1]])
        return Case(
            f"g (int64[N,M] i) => (float[N,M,{inner}] y) {{ y = Gather(w, i) }}", {"w": random(out, inner)}, {"i": ids}
        )
    if form == "conv":
        body = f"g (float[N,{inner},1,1] x) => (float[N,{out},1,1] y) {{ y = Conv(x, w) }}"
        return Case(body, {"w": random(out, inner, 1, 1)}, {"x": random(2, inner, 1, 1, seed=1)})
    body = f"g (float[N,{inner}] x) => (float[N,{out}] y) {{ y = MatMul(x, w) }}"
    return Case(body, {"w": random(inner, out)}, {"x": random(3, inner, seed=1)})


def scale_names(grid: Grid) -> tuple[str, ...]:
    """How scales of a grid may be stored: zero points go with plain ones."""
    return (*PLAIN_NAMES, *scales()) if grid.symmetric else PLAIN_NAMES


PLACES = tuple(product(("linear", "conv", "rows"), SHAPES))


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.text}_{grid.symmetry}")
def test_a_file_of_blocks_computes_what_decoding_says(grid: Grid, tmp_path: Path) -> None:
    """Every block with every scale, in a place and shape that are others for each grid."""
    for at, (block, scale) in enumerate(product(BLOCKS, scale_names(grid)), GRIDS.index(grid)):
        hold(Blocked(grid, block, scale), *PLACES[at % len(PLACES)], tmp_path)


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", [*PLAIN, *TREES], ids=lambda one: one.text.replace(" ", "_"))
def test_a_file_of_others_computes_what_decoding_says(encoding: Encoding, tmp_path: Path) -> None:
    """In all places, and in all shapes."""
    for place, shape in PLACES[TREES.index(encoding) % 2 if encoding in TREES else 0 :: 2]:
        hold(encoding, place, shape, tmp_path)


def hold(encoding: Encoding, place: str, shape: tuple[int, int], folder: Path) -> None:
    """The file computes what decoding says and holds as many bytes, or the encoding is refused with a reason."""
    one = case(place, *shape)
    try:
        made = onnx_models.emit(one, encoding, ROWS if place == "rows" else DECODED, folder)
    except Refused as refused:
        assert refused.reason
        assert not is_taken(encoding, place, shape)
        return
    (wanted,), (got,) = made.expected.values(), onnx_models.run(made.path, one.feeds).values()
    assert np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max(), encoding.text
    held = sum(8 * len(tensor.raw_data) for tensor in made.stored)
    units = sum(8 * UNIT * part.shape[0] for part in made.encoding.parts(shape).values())  # what fills them up
    assert 0 <= held - made.encoding.size_bits(shape) <= units, encoding.text


def is_taken(encoding: Encoding, form: str, shape: tuple[int, int]) -> bool:
    """Nothing says that this cannot be."""
    return form != "rows" or encoding.rows_apart
