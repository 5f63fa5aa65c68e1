"""How many branches go, decided with bits: what is measured is what happens, and the best number is taken."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.compiler.allocate.removals import lost_whole, removals
from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.compile import compile, decide_plan
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.tally import NOISE
from qcc.compiler.sweep.sweep import sweep
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.graph import Graph
from qcc.ir.regions.residual import residual_branches
from qcc.passes.contract.contract import Context
from qcc.passes.structure.leave_out import LeaveOut
from tests.onnx_models import parse

SAMPLES = 24
ALIKE = 1e-3  # of a loss: sums in another order
SIZES = (0.05, 0.5, 0.1, 1.0)  # of what branches add
WIDE = 64

BRANCH = """    u{0} = MatMul(x{0}, up{0})
    a{0} = Relu(u{0})
    d{0} = MatMul(a{0}, down{0})
    x{1} = Add(x{0}, d{0})
"""
NET = "".join(BRANCH.format(at, at + 1) for at in range(len(SIZES)))
NET = (
    f"net (float[n,16] x) => (float[n,4] y) {{\n    x0 = MatMul(x, first)\n{NET}    y = MatMul(x{len(SIZES)}, last)\n}}"
)


def drawn_weights() -> dict[str, np.ndarray]:
    """Of `NET`."""
    draw = np.random.default_rng(2)
    shapes = {"first": (16, 32), "last": (32, 4)}
    for at in range(len(SIZES)):
        shapes |= {f"up{at}": (32, WIDE), f"down{at}": (WIDE, 32)}
    return {
        name: draw.standard_normal(one).astype(np.float32) / np.float32(one[0] ** 0.5) for name, one in shapes.items()
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = drawn_weights()
    for at, size in enumerate(SIZES):
        weights[f"down{at}"] *= np.float32(size)
    path = tmp_path_factory.mktemp("depth") / "net.onnx"
    onnx.save(parse(NET, weights), path)
    return path


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(3)
    return [{"x": draw.standard_normal((1, 16)).astype(np.float32)} for _ in range(SAMPLES)]


def _samples(graph: Graph, feeds: list[dict[str, np.ndarray]]) -> Samples:
    return load(feeds, graph, None, 0)


def test_what_is_measured_is_what_is_lost(model: Path, feeds: list[dict[str, np.ndarray]]) -> None:
    graph = open_model(model).graph
    samples, branches = _samples(graph, feeds), residual_branches(graph)
    found = list(removals(graph, branches, 3, samples, NOISE, lambda *_: None))
    assert [one.branch.weights[0] for one in found] == ["up0", "up2", "up1"]
    gone: list[str] = []
    for one in found:
        gone += one.branch.weights
        after, _ = LeaveOut().apply(graph, gone, Context())
        assert one.loss == pytest.approx(lost_whole(graph, after, samples, NOISE), rel=ALIKE)


def _policy(budget: str, more: str = "") -> str:
    return f"""qpolicy 1
rule any {{ weights = int{{6,8}} channel }}
depth {{ leave_out = "up*" | "down*", at_most = 3{more} }}
{budget}
verify {{ cosine >= -0.99 }}
"""


@pytest.mark.slow
def test_branches_go_where_bits_alone_cannot_pay(
    model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    full = compile(model, "qpolicy 1\nrule any { weights = int6 channel }\n", output=tmp_path / "all.onnx", data=feeds)
    bound = int(full.output_bytes * 0.9)
    plan, _, _ = decide_plan(model, _policy(f"budget {{ size <= {bound}B }}"), data=feeds)
    assert [type(step.action).__name__ for step in plan.steps][:2] == ["Clean", "LeaveOut"]
    for share, gone in ((1.3, 0), (0.9, 1), (0.7, 2)):
        output = tmp_path / f"{share}.onnx"
        bound = int(full.output_bytes * share)
        result = compile(model, _policy(f"budget {{ size <= {bound}B }}"), output=output, data=feeds)
        assert result.passed and result.output_bytes <= bound
        left = [row.name for row in result.layers if row.name.startswith("up")]
        assert len(left) == len(SIZES) - gone
        assert any(note.startswith("left out of at most 3 branches") for note in result.notes)
        if gone:
            assert "up0" not in left and "up3" in left


@pytest.mark.slow
def test_the_number_that_loses_least_is_taken(model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path) -> None:
    result = compile(model, _policy("budget { size <= 20% }"), output=tmp_path / "one.onnx", data=feeds)
    (told,) = [note for note in result.notes if note.startswith("what outputs lose")]
    lost = {one.split(" gone")[0]: float(one.rsplit(" ", 1)[1]) for one in told.split(": ", 1)[1].split("; ")}
    names = next(note for note in result.notes if note.startswith("left out of"))
    assert str(names.count("`") // 2) == min(lost, key=lost.__getitem__)


def test_without_a_budget_there_is_nothing_to_leave_out_for(model: Path, tmp_path: Path) -> None:
    for budget in ("", "budget { drop(accuracy) <= 1% }"):
        with pytest.raises(QccError) as caught:
            compile(model, _policy(budget), output=tmp_path / "none.onnx")
        assert [one.code for one in caught.value.diagnostics] == ["Q680"]


def test_a_cure_needs_data_here_too(model: Path, tmp_path: Path) -> None:
    with pytest.raises(QccError) as caught:
        compile(model, _policy("budget { size <= 20% }", ", cure = best"), output=tmp_path / "none.onnx")
    assert [one.code for one in caught.value.diagnostics] == ["Q523"]


def test_a_sweep_says_that_it_does_not_decide_it(model: Path) -> None:
    policy = 'qpolicy 1\ndepth { leave_out = "*", at_most = 2 }\nrule any { weights = int{4,8} channel }\n'
    with pytest.raises(QccError) as refused:
        sweep(model, policy)
    assert [one.code for one in refused.value.diagnostics] == ["Q680"]
