"""Groups of channels that together keep a share of the multiplications: those go that outputs miss least."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.compiler.compile import compile
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.onnx.graph.run import reference
from qcc.passes.contract.contract import Context
from qcc.passes.structure.channel_fit import Removals
from qcc.passes.structure.division import divided
from qcc.passes.structure.shares import known_stays
from tests.onnx_models import parse, random

HIDDEN = 64
NET = """net (float[n,16] x) => (float[n,16] y) {
    a = MatMul(x, up_a)
    ar = Relu(a)
    am = MatMul(ar, down_a)
    b = MatMul(x, up_b)
    br = Relu(b)
    bm = MatMul(br, down_b)
    y = Add(am, bm)
}"""
POLICY = "qpolicy 1\nrule linear[out == 64] {{ structure = channels(keep = 50%, of = {of}, by = obs, refit = true) }}\n"


def _going(*costs: float, size: int = HIDDEN) -> Removals:
    return Removals(np.arange(len(costs)), np.array(costs), size)


def test_what_goes_is_the_cheapest_for_what_it_frees() -> None:
    draw = np.sort(np.random.default_rng(0).uniform(0.1, 1, 40))
    going = {"dear": _going(*draw), "cheap": _going(*draw), "small": _going(*draw)}
    work = {"dear": 1.0, "cheap": 1.0, "small": 0.1}
    slopes = {"dear": 10.0, "cheap": 1.0, "small": 1.0}
    seen = []

    def losses(counts: Mapping[str, int]) -> dict[str, float]:
        seen.append(dict(counts))
        return {name: slopes[name] * going[name].cost(count) for name, count in counts.items()}

    counts = divided(going, work, 0.75, dict.fromkeys(going, 48), losses)
    assert sum(work[name] * (HIDDEN - count) for name, count in counts.items()) >= 0.25 * HIDDEN * sum(work.values())
    assert min(counts["dear"], counts["small"]) > counts["cheap"]
    assert seen == [dict.fromkeys(going, 48), {name: count for name, count in counts.items() if count < HIDDEN}]


def test_counts_are_multiples() -> None:
    going = {name: _going(*np.linspace(0.1, 1, 40)) for name in "ab"}
    slopes = {"a": 1.0, "b": 2.0}

    def losses(counts: Mapping[str, int]) -> dict[str, float]:
        return {name: slopes[name] * going[name].cost(count) for name, count in counts.items()}

    counts = divided(going, dict.fromkeys("ab", 1.0), 0.7, dict.fromkeys("ab", 45), losses, multiple=8)
    assert all(count % 8 == 0 for count in counts.values()) and counts["a"] < counts["b"]
    assert 0.7 * 2 * HIDDEN - 8 < sum(counts.values()) <= 0.7 * 2 * HIDDEN


def test_nothing_goes_that_may_not() -> None:
    counts = divided({"a": _going(1.0, 2.0)}, {"a": 1.0}, 0.1, {"a": 62}, lambda counts: dict.fromkeys(counts, 1.0))
    assert counts == {"a": HIDDEN - 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of hidden channels, of which the second adds next to nothing."""
    weights = {f"up_{name}": random(16, HIDDEN, seed=at) for at, name in enumerate("ab")}
    weights |= {"down_a": random(HIDDEN, 16, seed=2), "down_b": 0.05 * random(HIDDEN, 16, seed=3)}
    path = tmp_path_factory.mktemp("division") / "net.onnx"
    onnx.save(parse(NET, weights), path)
    return path


def _data(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(5)
    return [{"x": draw.standard_normal((8, 16)).astype(np.float32)} for _ in range(count)]


def test_outputs_lose_less_than_if_each_keeps_as_much(model: Path, tmp_path: Path) -> None:
    lost, left, feed = {}, {}, {"x": random(64, 16, seed=9)}
    for of in ("each", "all"):
        output = tmp_path / f"{of}.onnx"
        compile(model, POLICY.format(of=of), output=output, data=_data(16))
        sizes = {one.name: one.dims[1] for one in onnx.load(output).graph.initializer if one.name.startswith("up")}
        left[of] = sizes["up_a"], sizes["up_b"]
        wanted, found = (reference(path)(feed)["y"].astype(np.float64) for path in (model, output))
        lost[of] = np.square(found - wanted).sum() / np.square(wanted).sum()
    assert left["each"] == (32, 32)
    assert left["all"][0] > 32 > left["all"][1] and sum(left["all"]) <= 64
    assert lost["all"] < 0.5 * lost["each"]


@pytest.mark.parametrize("of", ["each", "all"])
def test_channels_that_no_layer_reads_alone_go_by_their_weights(of: str, tmp_path: Path) -> None:
    """Behind a concatenation, and nothing else to learn from: no data is asked for."""
    body = NET.replace("br = Relu(b)", "z = Relu(b) br = Concat<axis = 1>(z, x)").replace("am, bm", "bm, x")
    weights = {f"up_{name}": random(16, HIDDEN, seed=at) for at, name in enumerate("ab")}
    weights |= {"down_a": random(HIDDEN, 16, seed=2), "down_b": random(HIDDEN + 16, 16, seed=3)}
    onnx.save(parse(body, weights), tmp_path / "net.onnx")
    compile(tmp_path / "net.onnx", POLICY.format(of=of), output=tmp_path / "cut.onnx", data=_data(4))
    (up,) = (one for one in onnx.load(tmp_path / "cut.onnx").graph.initializer if one.name == "up_b")
    assert up.dims[1] == HIDDEN // 2


def test_what_stays_whole_does_not_change_what_goes_elsewhere() -> None:
    """The other graph, whose channels are silent, may be asked for the groups alone of which something went."""
    whole, some = np.ones(4, bool), np.array([True, False, True, False])
    context = Context()
    context.found["stays", "a", "b"] = {"a": whole, "b": some}
    assert (known_stays(context, ["b"]) or {}).keys() == {"b"}
    assert known_stays(context, ["a"]) is None
    assert known_stays(context, ["b", "c"]) is None


def test_weights_alone_reject(tmp_path: Path) -> None:
    path = tmp_path / "bad.qpolicy"
    path.write_text("qpolicy 1\nrule conv { structure = channels(keep = 50%, of = all) }\n", encoding="utf-8")
    with pytest.raises(QccError) as caught:
        compile("none.onnx", path)
    (one,) = caught.value.diagnostics
    assert one.code.startswith("Q2") and "takes `by = obs`" in one.message
