"""A budget is kept by the file and used up: what ops around weights take depends on the formats that are chosen."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.compiler.allocate.decide import BudgetError
from qcc.compiler.allocate.settle import settle
from qcc.compiler.build.run import Built
from qcc.compiler.measure.sensitivity import Losses
from qcc.compiler.plan.plan import Allocate, Candidate, Limit, OpenChoice, Plan
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.ir.graph.graph import Graph
from qcc.ir.model.model import Written
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest

BITS = (2, 3, 4, 6, 8)
FRAME, DECODER = 100.0, 120.0  # bytes of a file, and of each format in it


def encode(bits: int) -> Encode:
    return Encode(Blocked(IntGrid(bits), CHANNEL), Nearest(), DECODED)


class Files:
    """Writes files of which only the size is told."""

    def __init__(self, sizes: np.ndarray, limit: float) -> None:
        self.sizes, self.last = sizes, 0.0
        options = tuple(
            OpenChoice(str(at), tuple(Candidate(encode(b), "t", {"size": s}) for b, s in zip(BITS, row, strict=True)))
            for at, row in enumerate(sizes)
        )
        self.plan = Plan((), allocate=Allocate("output_error", (Limit("size", limit, "size"),), options, {}))

    def write(self, plan: Plan) -> tuple[Built[Graph], Written]:
        chosen = {
            name: BITS.index(step.action.encoding.bits)
            for step in plan.steps
            if isinstance(step.action, Encode) and isinstance(step.action.encoding, Blocked)
            for name in step.weights
        }
        self.last = FRAME + DECODER * len(set(chosen.values())) + sum(self.sizes[int(n), b] for n, b in chosen.items())
        return cast(Built[Graph], None), Written(Path("x"), None, int(self.last))


def losses(sizes: np.ndarray, seed: int) -> Losses:
    heights = np.random.default_rng(seed).lognormal(0, 1, len(sizes))
    found = tuple(height * 4.0 ** -np.array(BITS, float) for height in heights)
    return Losses(found, ((True,) * len(BITS),) * len(sizes), 0)


def drawn(seed: int, layers: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.outer(rng.integers(50, 2000, layers), np.array(BITS) / 8).round() + rng.integers(0, 90, (layers, 5))


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 9), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_what_one_format_for_all_keeps_is_kept(seed: int, layers: int, share: float) -> None:
    sizes = drawn(seed, layers)
    alike = sizes.sum(0) + FRAME + DECODER
    limit = float(np.floor(alike.min() + share * (alike.max() - alike.min())))
    files = Files(sizes, limit)
    found = settle(files.plan, files.write, lambda: losses(sizes, seed))
    assert found.written.size_bytes <= limit
    assert int(files.last) == found.written.size_bytes  # it is the file that lies there


def test_the_smallest_weights_may_not_be_the_smallest_file() -> None:
    sizes = np.array([[90.0, 100, 110, 120, 130], [200.0, 190, 210, 220, 230]])  # two formats save ten bytes
    files = Files(sizes, FRAME + DECODER + 290)
    found = settle(files.plan, files.write, lambda: losses(sizes, 0))
    assert found.written.size_bytes <= FRAME + DECODER + 290


def test_a_size_that_nothing_keeps_names_the_smallest_file_reject() -> None:
    sizes = np.array([[90.0, 100, 110, 120, 130], [200.0, 190, 210, 220, 230]])
    files = Files(sizes, FRAME + DECODER + 289)
    with pytest.raises(BudgetError) as error:
        settle(files.plan, files.write, lambda: losses(sizes, 0))
    assert "the smallest feasible size is 510 bytes" in str(error.value.diagnostics[0].note)


def test_room_that_was_set_aside_for_nothing_is_used() -> None:
    """The first choice has five formats and is too large by their decoders; what takes fewer leaves room again."""
    sizes = np.outer(np.full(40, 400), np.array(BITS) / 8)
    limit = 40 * 400 * 3.9 / 8 + FRAME + DECODER
    files = Files(sizes, limit)
    found = settle(files.plan, files.write, lambda: losses(sizes, 3))
    assert found.written.size_bytes > 0.985 * limit  # a step from one width to the next is a tenth of a percent
