"""Rounding's laws for encodings that are made of others."""

import numpy as np
import pytest

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, FLOAT_ENCODINGS, Blocked
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.fit import encode, encoded, fitted
from qcc.ir.encoding.formats.composed.bands import Bands
from qcc.ir.encoding.formats.composed.blocks import Sparse
from qcc.ir.encoding.formats.composed.low_rank import LowRank
from qcc.ir.encoding.formats.composed.nothing import Nothing
from qcc.ir.encoding.formats.composed.scattered import ShareOfRow, SomeOfEvery
from qcc.ir.encoding.formats.composed.signs import Signs
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.grid import IntGrid, TableGrid
from qcc.ir.encoding.reference import NUMPY
from qcc.ir.errors import Refused
from qcc.passes.rounding.gptq import output_error, round_columns

INT4, INT2, INT8 = Blocked(IntGrid(4), group(32)), Blocked(IntGrid(2, False), group(16)), Blocked(IntGrid(8))
NF4, BINARY = Blocked(TableGrid("nf4"), group(24), "e4m3"), Blocked(TableGrid("int1"), CHANNEL)
SEPARATE = [
    INT4, INT2, NF4, FLOAT32, FLOAT_ENCODINGS["bf16"],
    Blocked(IntGrid(3), TENSOR),
    Blocked(IntGrid(3, False), Block(4, 8)),
    Bands((INT4, BINARY), 0.25),
    Bands((FLOAT32, Bands((NF4, INT2), 0.5)), 0.1),
    Bands((INT4, Blocked(IntGrid(3)), INT2, BINARY, Nothing()), average=2.0),
    Bands((INT4, Bands((Blocked(IntGrid(2)), BINARY, Nothing()), average=1.5)), 0.3),
    Sparse(4, 8, 0.5, INT4),
    Sparse(5, 7, 0.3, FLOAT32),
    Sparse(4, 8, 0.5, Bands((INT4, INT2), 0.5)),
    Sparse(4, 8, 0.5, Bands((INT4, INT2, Nothing()), average=2.5)),
    Sparse(8, 8, 0.6, Sparse(1, 4, 0.5, INT8)),
    SomeOfEvery(INT4, "wanda", 0, 2, 4),
    SomeOfEvery(FLOAT32, "magnitude", 0, 5, 7),
    ShareOfRow(INT2, "wanda", 0, 0.3),
    SomeOfEvery(Sparse(4, 2, 0.5, INT8), "taylor", 0, 4, 8),
    Signs(),
]  # fmt: skip
SUMS = [
    Stack((INT2, INT4)),
    Stack((BINARY,) * 3),
    Stack((Sparse(4, 8, 0.5, INT4), Bands((INT4, INT2), 0.2))),
    Stack((Bands((INT4, INT2, BINARY), average=1.9), INT2)),
    Stack((INT4, LowRank(0, 0.25, INT8))),
    Stack((LowRank(4, 0.0, INT8), INT4)),
    Stack((Signs(), Signs(), Signs(2))),
]
SHAPES = ((24, 64), (13, 50), (1, 9), (5, 1))
RNG = np.random.default_rng(0)


def name(encoding: Encoding) -> str:
    return encoding.text.replace(" ", "_")


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", [*SEPARATE, *SUMS, LowRank(0, 0.5, INT8)], ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_weight_is_stored_as_what_rounding_says(encoding: Encoding, shape: tuple[int, int]) -> None:
    """Column after column, of other values than those that scales were fitted to."""
    found = fitted(RNG.standard_normal(shape).astype(np.float32), encoding)
    told = np.empty(shape, np.float32)
    for column in range(shape[1]):
        for rows in (slice(0, shape[0] // 2), slice(shape[0] // 2, shape[0])):
            values = RNG.standard_normal(rows.stop - rows.start).astype(np.float32)
            told[rows, column] = found.round(rows, column, values)
    decoded = found.settled(encoding).decode(NUMPY, found.parts().__getitem__, shape)
    assert np.abs(decoded - told).max() <= 1e-6  # sums of levels in another order


@pytest.mark.parametrize("encoding", SEPARATE, ids=name)
def test_rounding_what_was_fitted_changes_nothing(encoding: Encoding) -> None:
    matrix = RNG.standard_normal((24, 64)).astype(np.float32)
    before = encode(matrix, encoding).decode()
    found = fitted(matrix, encoding)
    for column in range(64):
        found.round(slice(0, 24), column, matrix[:, column])
    assert np.array_equal(encoded(matrix, encoding, found).decode(), before)


@pytest.mark.sampled
@pytest.mark.parametrize("encoding", [*SEPARATE[7:], *SUMS], ids=name)
def test_feedback_lowers_the_error_at_the_output(encoding: Encoding) -> None:
    """Inputs that lean on each other, and of all powers; the same, whatever ran before."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((48, 64)).astype(np.float32)
    inputs = rng.standard_normal((400, 64)) @ (np.eye(64) + 0.4 * rng.standard_normal((64, 64)))
    inputs *= np.exp(rng.standard_normal(64))
    gram = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    swept = output_error(matrix, round_columns(matrix, encoding, gram, 0.01, "mse"), gram)
    holes = isinstance(encoding, SomeOfEvery) and isinstance(encoding.inner, Sparse)  # the inner ones weigh most
    assert swept < (1.0 if holes else 0.9) * output_error(matrix, encode(matrix, encoding), gram)


def test_the_fine_band_holds_what_matters() -> None:
    """The norm of a column tells, or that times the power of what it is multiplied with."""
    matrix = np.ones((8, 32), np.float32)
    matrix[:, 3:11] = 5
    parts = encode(matrix, Bands((INT8, BINARY), 0.25)).parts
    assert not parts["band"][3:11].any() and parts["band"].sum() == 24
    gram = np.diag(np.where(np.arange(32) < 24, 1.0, 1000.0)).astype(np.float32)
    parts = round_columns(matrix, Bands((INT8, BINARY), 0.25), gram, 0.01, "mse").parts
    assert not parts["band"][24:].any() and parts["band"].sum() == 24


def test_products_are_as_near_as_singular_vectors_get() -> None:
    matrix = RNG.standard_normal((40, 30)).astype(np.float32)
    for turned in (matrix, np.ascontiguousarray(matrix.T)):
        sizes = np.linalg.svd(turned, compute_uv=False)
        best = float((sizes[8:] ** 2).sum())
        error = float(((encode(turned, LowRank(8, 0.0, FLOAT32)).decode() - turned) ** 2).sum())
        assert best * (1 - 1e-4) <= error <= best * (1 + 1e-4)  # float32


def test_products_mind_what_columns_are_multiplied_with() -> None:
    matrix, power = RNG.standard_normal((40, 30)).astype(np.float32), np.exp(2 * RNG.standard_normal(30))
    product = LowRank(6, 0.0, INT8)

    def error(found: np.ndarray) -> float:
        return float(((found - matrix) ** 2 * power).sum())

    blind, minded = (fitted(matrix, product, power=one).parts() for one in (None, power))
    decoded = [product.decode(NUMPY, one.__getitem__, (40, 30)) for one in (blind, minded)]
    assert error(decoded[1]) < 0.8 * error(decoded[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", ["e8m0", "e4m3", "fp16"])
def test_blocks_of_nothing_but_zeros_have_no_inverse(scale: str) -> None:
    matrix = np.zeros((4, 64), np.float32)
    matrix[0, 0] = 1
    found = encode(matrix, Stack((Blocked(TableGrid("fp4"), group(32), scale), INT4)))
    assert np.array_equal(found.decode(), matrix)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "encoding", [Sparse(4, 4, 0.1, INT4), LowRank(2, 0.0, INT8), Bands((INT4, BINARY), 0.5)], ids=name
)
def test_what_no_encoding_can_hold_is_refused(encoding: Encoding, bad: float) -> None:
    matrix = np.zeros((16, 16), np.float32)
    assert not encode(matrix, encoding).decode().any()
    matrix[3, 5] = bad
    with pytest.raises(Refused, match="row 3, column 5"):
        encode(matrix, encoding)


@pytest.mark.parametrize("encoding", [*SEPARATE, *SUMS], ids=name)
def test_a_column_for_each_row(encoding: Encoding) -> None:
    """As if each were asked for alone."""
    matrix, columns = RNG.standard_normal((24, 64)).astype(np.float32), RNG.integers(0, 64, 24)
    values = RNG.standard_normal(24).astype(np.float32)
    told = fitted(matrix, encoding).round(np.arange(24), columns, values)
    alone = fitted(matrix, encoding)
    for row, column in enumerate(columns.tolist()):
        one = alone.round(slice(row, row + 1), column, values[row : row + 1])
        assert one == pytest.approx(told[row], abs=1e-6)  # sums of levels in another order
