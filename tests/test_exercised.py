"""Weights that no sample exercises are named: masked, multiplied by zero, fed zeros or always the same."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.compile import compile
from qcc.compiler.observe.executor import Here
from qcc.compiler.verify.exercised import unexercised, unread_rows
from qcc.ir.onnx.adapter import OnnxGraph
from tests import onnx_models as models

W, V = models.random(64, 32), models.random(64, 32, seed=1)
ZERO = np.array(0, np.float32)
MASKED = """g (float[N,64] x, bool[N,64] k) => (float[N,32] y) {
    f = Where(k, x, z) h = MatMul(f, w) g = Where(k, z, x) i = MatMul(g, v) y = Add(h, i) }"""
CHOSEN = (
    """g (float[N,64] x, bool[N,1] k) => (float[N,32] y) { h = MatMul(x, w) i = MatMul(x, v) y = Where(k, h, i) }"""
)
GATED = """g (float[N,64] x, float[N,1] k) => (float[N,32] y) {
    h = MatMul(x, w) i = MatMul(x, v) j = Mul(i, k) y = Add(h, j) }"""
X = models.random(4, 64)
OFF, ON = np.zeros((4, 1)), np.ones((4, 1))


def found(folder: Path, body: str, **feeds: np.ndarray) -> dict[str, str]:
    onnx.save(models.parse(body, {"w": W, "v": V, "z": ZERO}), folder / "m.onnx")
    graph = OnnxGraph.load(folder / "m.onnx")
    samples = Samples((dict(feeds),), "given", divisible=True)
    idle = unexercised(graph, [weight.name for weight in graph.weights()], samples)
    constants = {weight.name: weight.constant for weight in graph.weights()}
    return {constants[name]: reason for name, reason in idle.items()}


MIXED = np.array([[True], [False], [True], [False]])


@pytest.mark.parametrize(
    ("body", "gate", "idle"),
    [
        (MASKED, np.ones((4, 64), bool), {"v": "zeros"}),
        (MASKED, np.zeros((4, 64), bool), {"w": "zeros"}),
        (MASKED, np.broadcast_to(MIXED, (4, 64)), {}),
        (CHOSEN, ON.astype(bool), {"v": "masked"}),
        (CHOSEN, OFF.astype(bool), {"w": "masked"}),
        (CHOSEN, MIXED, {}),
        (GATED, OFF.astype(np.float32), {"v": "multiplied by zero"}),
        (GATED, ON.astype(np.float32), {}),
        (GATED, MIXED.astype(np.float32), {}),
    ],
)
def test_idle_weights_are_found(tmp_path: Path, body: str, gate: np.ndarray, idle: dict[str, str]) -> None:
    named = found(tmp_path, body, x=X, k=gate)
    assert named.keys() == idle.keys()
    assert all(word in named[name] for name, word in idle.items())


def test_what_is_always_the_same_is_idle(tmp_path: Path) -> None:
    body = "g (float[N,64] x, float[N,64] p) => (float[N,32] y) { h = MatMul(x, w) i = MatMul(p, v) y = Add(h, i) }"
    same = np.repeat(models.random(1, 64, seed=5), 4, axis=0)
    assert list(found(tmp_path, body, x=X, p=same)) == ["v"]
    assert found(tmp_path, body, x=X, p=X) == {}


def test_rows_that_nobody_looks_up_are_a_share(tmp_path: Path) -> None:
    body = "g (int64[N] i) => (float[N,32] y) { y = Gather(t, i) }"
    onnx.save(models.parse(body, {"t": models.random(10, 32)}), tmp_path / "m.onnx")
    graph = OnnxGraph.load(tmp_path / "m.onnx")
    (name,) = [weight.name for weight in graph.weights()]
    rows = unread_rows(graph, [name], Samples(({"i": np.array([0, 1, -1])},), "given"))
    assert rows == {name: pytest.approx(0.7)}
    assert unread_rows(graph, [name], Samples(({"i": np.arange(10)},), "given")) == {}


@pytest.mark.slow
def test_a_compilation_names_them(tmp_path: Path) -> None:
    onnx.save(models.parse(MASKED, {"w": W, "v": V, "z": ZERO}), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=models.random(8, 64), k=np.ones((8, 64), bool))
    result = compile(tmp_path / "m.onnx", data=tmp_path / "d.npz")
    assert [one.code for one in result.warnings] == ["Q321"]
    assert "zeros" in result.verification.notes[0]
    assert compile(tmp_path / "m.onnx").verification.notes == ()  # generated masks are drawn


def test_no_more_samples_are_run_than_it_takes(tmp_path: Path) -> None:
    """Two show that inputs vary; of what is always zero all that are allowed are looked at."""
    for k, wanted in ((MIXED, 2), (np.zeros((4, 64), bool), 4)):
        onnx.save(models.parse(MASKED, {"w": W, "v": V, "z": ZERO}), tmp_path / "m.onnx")
        graph = OnnxGraph.load(tmp_path / "m.onnx")
        counted = Counted()
        samples = Samples(({"x": X, "k": np.broadcast_to(k, (4, 64))},), "given", divisible=True)
        unexercised(graph, [weight.name for weight in graph.weights()], samples, counted)
        assert counted.done == wanted


class Counted(Here):
    """Counts what is done."""

    done = 0

    def each(self, make: Callable[[], Callable[[Any], Any]], things: Sequence[Any]) -> Iterator[Any]:
        """Do the work."""
        for found in super().each(make, things):
            self.done += 1
            yield found
