"""The allocator's own laws: what it gives is never worse than one format for all, and the closed form is a bound."""

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qcc
from qcc.compiler.allocate.choice.closed_form import least_loss
from qcc.compiler.allocate.choice.equal_slope import equal_slope
from qcc.compiler.allocate.choice.solve import BudgetRow, Problem, solve
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.console.percent import percent
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.console import _allocation_lines
from qcc.compiler.report.result import Result
from qcc.dsl.load import load_text
from tests import onnx_models

CLOSE = 1e-9  # of a loss: rounding
SLACK = 3000  # bytes: of the functions that decode two formats more


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0, 1))
def test_no_choice_loses_less_than_the_closed_form(seed: int, layers: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(64, 4096, layers)
    bits = [np.sort(rng.uniform(1, 9, rng.integers(1, 5))) for _ in range(layers)]
    sizes = [one * count / 8 for one, count in zip(bits, counts, strict=True)]
    losses = [rng.lognormal(0, 2) * rng.lognormal(0, 0.5, len(one)) * 4.0**-one for one in bits]
    if rng.random() < 0.3:
        losses[0][-1] = 0
    least, most = (sum(pick(one) for one in sizes) for pick in (np.min, np.max))
    room = float(least + share * (most - least))
    found = solve(Problem(tuple(losses), (BudgetRow("size", tuple(sizes), room),)))
    assert least_loss(losses, sizes, counts.tolist(), room) <= found.cost * (1 + CLOSE)
    slope = equal_slope(losses, sizes, room)
    assert slope is not None and found.cost <= slope * (1 + CLOSE)


def test_an_equal_slope_leaves_room_that_no_weight_fits_in() -> None:
    """Two weights: at the price at which either takes more, both would, and only one of them fits."""
    losses, sizes = [np.array([9.0, 1.0]), np.array([9.0, 1.0])], [np.array([1.0, 2.0]), np.array([1.0, 2.0])]
    assert equal_slope(losses, sizes, 3.0) == 18.0
    assert equal_slope(losses, sizes, 4.0) == 2.0
    assert equal_slope(losses, sizes, 1.0) is None
    assert solve(Problem(tuple(losses), (BudgetRow("size", tuple(sizes), 3.0),))).cost == 10.0


def test_the_closed_form_is_met_where_bits_are_free() -> None:
    counts, heights = [100, 300], [1.0, 64.0]
    bits = np.linspace(0, 12, 2401)
    losses = [height * 4.0**-bits for height in heights]
    sizes = [bits * count / 8 for count in counts]
    room = 4.0 * sum(counts) / 8
    found = solve(Problem(tuple(losses), (BudgetRow("size", tuple(sizes), room),)))
    assert found.cost == pytest.approx(least_loss(losses, sizes, counts, room), rel=1e-3)


WIDTH = 128
MODEL = f"""g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] z) {{
    y = MatMul(x, v)
    m = MatMul(x, w)
    e = MatMul(x, u)
    s = Add(y, m)
    t = Add(s, e)
    z = Add(t, x)
}}"""


def together() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Two products that undo each other, their errors too where both are stored alike, and one that hardly matters."""
    v = onnx_models.random(WIDTH, WIDTH, seed=1)
    feeds = [{"x": onnx_models.random(1, WIDTH, seed=at)} for at in range(64)]
    return onnx_models.parse(MODEL, {"v": v, "w": -v, "u": v[::-1] * np.float32(0.01)}), feeds


def compiled(folder: Path, formats: str, more: str) -> Result:
    proto, feeds = together()
    onnx.save(proto, folder / "model.onnx")
    policy = load_text(f"qpolicy 1\nrule any {{ weights = {formats} }}\n{more}", schema())
    return qcc.compile(folder / "model.onnx", policy, output=folder / "out.onnx", data=feeds)


def lost(folder: Path) -> float:
    _, feeds = together()
    wanted, got = (qcc.Session(folder / name) for name in ("model.onnx", "out.onnx"))
    pairs = [(wanted.run(one)["z"], got.run(one)["z"]) for one in feeds]
    return float(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs))


@pytest.mark.slow
def test_one_format_for_all_is_taken_where_errors_that_meet_undo_each_other(tmp_path: Path) -> None:
    uniform = compiled(tmp_path, "int4 channel", "")
    alone = lost(tmp_path)
    budget = f"budget {{ size <= {uniform.output_bytes + SLACK} B }}\nminimize output_error"
    found = compiled(tmp_path, "int{3,4,5} channel", budget).allocation
    assert found is not None and found.rivals is not None and found.rivals[1] < found.rivals[0]
    assert lost(tmp_path) <= alone * (1 + CLOSE)
    assert "one format for all" in _allocation_lines(found)[0]


@pytest.mark.slow
def test_the_bound_is_told(tmp_path: Path) -> None:
    result = compiled(tmp_path, "int{2,3,4,6,8} group 32", "budget { size <= 30% }\nminimize output_error")
    found = result.allocation
    assert found is not None and found.least_error is not None and found.predicted_error is not None
    assert 0 < found.least_error <= found.predicted_error * (1 + CLOSE)
    assert f"{percent(found.least_error)}, by BAQ's closed form" in _allocation_lines(found)[1]
    assert found.equal_slope is not None and found.predicted_error <= found.equal_slope * (1 + CLOSE)
    assert f"{percent(found.equal_slope)}, as LPViT chooses" in _allocation_lines(found)[2]
    free = compiled(tmp_path, "int{2,3,4,6,8} group 32", "budget { bits <= 5 }\nminimize output_error").allocation
    assert free is not None and free.least_error is None


def test_the_last_samples() -> None:
    batches = tuple({"x": np.arange(at, at + 4)[:, None]} for at in (0, 4, 8))
    samples = Samples(batches, "drawn", divisible=True)
    assert [one["x"][:, 0].tolist() for one in samples.last(6).batches] == [[6, 7], [8, 9, 10, 11]]
    assert samples.last(100).count == 12 and samples.last(0).count == 1
    assert [one["x"].shape[0] for one in Samples(batches, "drawn").last(6).batches] == [4, 4]


@pytest.mark.slow
def test_under_a_bound_of_energy_the_program_is_not_worse_than_one_price(tmp_path: Path) -> None:
    decided = 0
    for share in (30, 45, 70):
        budget = f"budget {{ energy <= {share}% }}\nminimize output_error"
        found = compiled(tmp_path, "int{4,8} group 32 | float", budget).allocation
        assert found is not None and found.equal_slope is not None and found.predicted_error is not None
        if math.isfinite(found.gap):  # else one format for all was better when all were run together
            assert found.predicted_error <= found.equal_slope * (1 + CLOSE)
            decided += 1
        (line,) = [line for line in _allocation_lines(found) if "LPViT" in line]
        assert line.startswith("one price of energy for all would lose")
    assert decided
