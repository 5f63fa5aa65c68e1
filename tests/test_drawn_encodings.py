"""The law of encodings on drawn ones: any grid, block, scale and composition, in any form, layer and shape.

It is refused with a reason, or the file computes what the parts decode to, and its bytes are those of the parts.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, FLOAT_ENCODINGS, PLAIN_NAMES, Blocked, scales
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.encoded import leaves
from qcc.ir.encoding.formats.composed.bands import Bands
from qcc.ir.encoding.formats.composed.blocks import Sparse
from qcc.ir.encoding.formats.composed.codebook import Codebook
from qcc.ir.encoding.formats.composed.graph import Together
from qcc.ir.encoding.formats.composed.kmeans import Nearby
from qcc.ir.encoding.formats.composed.lattice import Lattice
from qcc.ir.encoding.formats.composed.low_rank import LowRank
from qcc.ir.encoding.formats.composed.merged import Merged
from qcc.ir.encoding.formats.composed.nothing import Nothing
from qcc.ir.encoding.formats.composed.scattered import ShareOfRow, SomeOfEvery
from qcc.ir.encoding.formats.composed.signs import Signs
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.formats.composed.structured import BlockProducts
from qcc.ir.encoding.grid import Grid, IntGrid, TableGrid, tables
from qcc.ir.encoding.packing import UNIT
from qcc.ir.encoding.pruning import BY
from qcc.ir.errors import Refused
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.find import forms
from qcc.ir.forms.rows import ROWS
from qcc.ir.graph.form import Form
from tests import onnx_models
from tests.onnx_models import CASES, Case

TOLERANCES = {"float32": 1e-5, "float16": 4e-3, "float64": 1e-5}  # of the largest output: sums in another order
LEVEL4 = 3e-2  # a head that shares an embedding's bytes rounds activations to 8 bits
SHARES = st.sampled_from((0.01, 0.2, 0.5, 0.9, 1.0))
GRIDS: list[Grid] = [
    *(IntGrid(bits, symmetric) for bits in range(2, 9) for symmetric in (True, False)),
    IntGrid(1, symmetric=False),
    *(TableGrid(name) for name in tables() if TableGrid(name).lowest < 0),
]
BLOCKS = [TENSOR, CHANNEL, group(2), group(16), group(24), group(32), Block(4, 8), Block(3, 0), Block(0, 5)]
SCALED = [(grid, scale) for grid in GRIDS for scale in (PLAIN_NAMES + tuple(scales() if grid.symmetric else ()))]
BLOCKED = st.builds(
    lambda pair, block: Blocked(pair[0], block, pair[1]), st.sampled_from(SCALED), st.sampled_from(BLOCKS)
)
PLAIN = st.sampled_from([*FLOAT_ENCODINGS.values(), Codebook(16), Codebook(32, 4, 12), Codebook(4, 8), Lattice(12)])


def composed(inner: st.SearchStrategy[Encoding]) -> st.SearchStrategy[Encoding]:
    part = st.one_of(inner, st.just(FLOAT32))
    side, closed = st.integers(1, 9), part.filter(lambda one: not one.open)
    return st.one_of(
        st.builds(lambda fine, coarse, share: Bands((fine, coarse), share), part, inner, SHARES),
        st.builds(averaged, st.lists(inner, min_size=2, max_size=5), st.floats(0, 1)),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(Stack),
        st.builds(LowRank, st.just(0), SHARES, closed),
        st.builds(LowRank, st.integers(1, 99), st.just(0.0), closed),
        st.builds(BlockProducts, st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.booleans(), closed),
        st.builds(Signs, st.integers(0, 9)),
        st.builds(Sparse, side, side.map(lambda size: size + 1), SHARES, part),
        st.builds(lambda inner, count, more: SomeOfEvery(inner, "obs", 0, count, count + more), part, side, side),
        st.builds(ShareOfRow, part, st.sampled_from(BY), st.sampled_from([0, 3]), SHARES),
        st.builds(lambda keep, inner: Merged(Nearby(keep), inner), SHARES, part),
        st.builds(lambda inner: Merged(Together("pairs.npz"), inner), part),
    )


def averaged(members: list[Encoding], between: float) -> Encoding:
    """Bands of some average of what has different bits, or the only one."""
    unlike = {one.order[0]: one for one in (*members, Nothing())}
    bits = sorted(unlike, reverse=True)
    average = bits[-1] + between * (bits[0] - bits[-1])
    return Bands(tuple(unlike[one] for one in bits), average=average) if len(bits) > 1 else members[0]


ENCODINGS = st.recursive(st.one_of(BLOCKED, PLAIN), composed, max_leaves=4)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A model of the collection, or a layer of any size, whose weight lies as it may."""
    place = draw(st.sampled_from(("linear", "turned", "conv", "rows", "known")))
    if place == "known":
        return CASES[draw(st.sampled_from(sorted(CASES)))]
    out, inner = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    random = onnx_models.random
    if place == "rows":
        body = f"g (int64[N] i) => (float[N,{inner}] y) {{ y = Gather(w, i) }}"
        return Case(body, {"w": random(out, inner)}, {"i": np.array([0, out - 1, -1])})
    if place == "conv":
        body = f"g (float[N,{inner},2,3] x) => (float[N,{out},1,1] y) {{ y = Conv(x, w) }}"
        return Case(body, {"w": random(out, inner, 2, 3)}, {"x": random(2, inner, 2, 3, seed=1)})
    x = {"x": random(3, inner, seed=1)}
    if place == "turned":
        return Case(f"g (float[N,{inner}] x) => (float[N,{out}] y) {{ y = Gemm <transB=1> (x, w) }}",
                    {"w": random(out, inner)}, x)  # fmt: skip
    return Case(f"g (float[N,{inner}] x) => (float[N,{out}] y) {{ y = MatMul(x, w) }}", {"w": random(inner, out)}, x)


@pytest.mark.slow
@settings(max_examples=90, deadline=None, derandomize=True)
@given(ENCODINGS, cases(), st.sampled_from([DECODED, *forms().values()]))
def test_a_drawn_encoding_is_refused_or_computed(encoding: Encoding, case: Case, form: Form) -> None:
    with TemporaryDirectory() as folder:
        hold(encoding, case, form, Path(folder))


def hold(encoding: Encoding, case: Case, form: Form, folder: Path) -> None:
    """Refused with a reason, or right in numbers and bytes."""
    try:
        made = onnx_models.emit(case, encoding, form, folder)
    except Refused as refused:
        assert refused.reason
        return
    got = onnx_models.run(made.path, case.feeds)
    for name, wanted in made.expected.items():
        size = np.abs(wanted).max(initial=0).astype(np.float64)
        assume(np.isfinite(size))
        stored = [
            str(array.dtype) for array in case.weights.values()
        ]  # rows need not be as coarse as a table's own type
        known = max(TOLERANCES.get(dtype, 1e-5) for dtype in (str(wanted.dtype), *stored))
        tolerance = max(known, LEVEL4 if form is ROWS and shared(case) else 0)
        assert np.abs(got[name] - wanted).max(initial=0) <= tolerance * max(size, 1e-30), encoding.text
    if form is DECODED:
        shape = made.shape
        held = sum(8 * len(tensor.raw_data) for tensor in made.stored)
        units = sum(8 * UNIT for _ in made.encoding.parts(shape))  # what fills up the last bytes of each
        assert 0 <= held - made.encoding.size_bits(shape) <= units, encoding.text


def shared(case: Case) -> bool:
    """A table that is multiplied with, too."""
    return "Gather" in case.body and ("MatMul" in case.body or "Gemm" in case.body)


def test_what_is_drawn_is_of_every_kind() -> None:
    """No kind is left out by chance."""
    seen: set[str] = set()

    @settings(max_examples=90, deadline=None, derandomize=True, database=None)
    @given(ENCODINGS)
    def look(encoding: Encoding) -> None:
        seen.update(type(one).__name__ for one in (encoding, *leaves(encoding), *encoding.within))

    look()
    assert seen >= {"Bands", "Nothing", "Stack", "LowRank", "Signs", "Sparse", "SomeOfEvery", "ShareOfRow", "Merged"}
    assert seen >= {"Codebook", "Lattice", "Blocked", "Floats"}
