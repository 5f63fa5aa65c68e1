"""Compiling models of old and new opsets: raised where a form needs it, compared before anything is encoded."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.build import raise_graph
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.file.adapters import ADAPTERS
from tests.onnx_models import parse, random, run

INT4 = "qpolicy 1\nrule any { weights = int4 group 32 }\n"
SOFTMAX = """g (float[A,2,64] x) => (float[A,B,C] y) {
    s = Softmax <axis=1> (x) h = MatMul(s, w) t = Softmax <axis=1> (h) y = MatMul(t, v) }"""
RESIZE = """g (float[A,8,B,C] x) => (float[D,E,F,G] y) {
    h = Conv <pads=[1,1,1,1]> (x, k) u = Resize(h, s) y = Conv(u, l) }"""
PLAIN = "g (float[A,64] x) => (float[A,B] y) { h = MatMul(x, w) y = MatMul(h, v) }"
LINEAR: dict[str, Array] = {"w": random(64, 64), "v": random(64, 64, seed=1)}
CONVS: dict[str, Array] = {
    "k": random(32, 8, 3, 3),
    "l": random(16, 32, 3, 3),
    "s": np.array([1, 1, 1.7, 1.7], np.float32),
}


def _compiled(
    folder: Path, body: str, weights: Mapping[str, Array], opset: int, policy: str = INT4, ir_version: int = 8
) -> Result:
    path = folder / "model.onnx"
    onnx.save(parse(body, weights, opset, ir_version), path)
    (folder / "p.qpolicy").write_text(policy, encoding="utf-8")
    return qcc.compile(path, folder / "p.qpolicy")


def _opset(result: Result) -> int:
    return next(int(entry.version) for entry in onnx.load(result.output).opset_import if not entry.domain)


@pytest.mark.slow
@pytest.mark.parametrize(("body", "weights", "opset"), [(SOFTMAX, LINEAR, 11), (RESIZE, CONVS, 10)])
def test_a_raised_model_differs_by_its_rounding_alone(
    body: str, weights: Mapping[str, Array], opset: int, tmp_path: Path
) -> None:
    result = _compiled(tmp_path, body, weights, opset)
    assert _opset(result) > opset
    assert result.verification.outputs[0].plain.sqnr > 12  # dB: two layers of 4 bits; another function is below 3


@pytest.mark.slow
def test_a_raise_that_changes_the_function_is_told_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(node: object, writer: object) -> None:
        right(node, writer)  # type: ignore[arg-type]
        getattr(node, "attributes").pop("nearest_mode")  # noqa: B009 - of whatever type it is

    right = ADAPTERS["Resize", 11]
    monkeypatch.setitem(ADAPTERS, ("Resize", 11), wrong)
    with pytest.raises(QccError) as caught:
        _compiled(tmp_path, RESIZE, CONVS, 10)
    (found,) = caught.value.diagnostics
    assert found.code == "Q412"
    assert "from 10 to 18 changes what it computes: output `y`" in found.message
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "p.qpolicy"}


@pytest.mark.slow
def test_a_raise_that_makes_what_does_not_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, ("Resize", 11), lambda node, _: node.replace_input_with(1, None))
    with pytest.raises(QccError) as caught:
        _compiled(tmp_path, RESIZE, CONVS, 10)
    assert caught.value.diagnostics[0].code == "Q412"
    assert "does not run" in caught.value.diagnostics[0].message


def test_random_ops_are_no_fault_of_the_raise(tmp_path: Path) -> None:
    body = SOFTMAX.replace("(float[A,B,C] y)", "(float[A,B,C] y, float[A,2,64] r)").replace(
        "y = ", "r = RandomNormalLike <dtype=1> (x) y = "
    )
    assert _compiled(tmp_path, body, LINEAR, 11).passed


@pytest.mark.parametrize(
    ("opset", "policy"), [(21, INT4), (11, 'qpolicy 1\nuse "lossless"\n'), (18, 'qpolicy 1\nuse "balanced"\n')]
)
def test_nothing_is_compared_where_nothing_is_raised(
    opset: int, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raise_graph, "_compare", None)
    assert _opset(_compiled(tmp_path, PLAIN, LINEAR, opset, policy)) == opset


@pytest.mark.sampled
@pytest.mark.parametrize("opset", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("preset", ["balanced", "lossless"])
def test_the_oldest_opsets_come_in(opset: int, preset: str, tmp_path: Path) -> None:
    body = """g (float[2,8,6,6] x) => (float[A,B] y) {
        h = Conv <kernel_shape=[3,3]> (x, k) p = MaxPool <kernel_shape=[2,2]> (h) f = Flatten(p) y = MatMul(f, w) }"""
    weights = {"k": random(32, 8, 3, 3), "w": random(288, 64)}
    result = _compiled(tmp_path, body, weights, opset, f'qpolicy 1\nuse "{preset}"\n', ir_version=4)
    assert result.passed
    assert result.verification.outputs[0].sqnr > 30
    assert _opset(result) == (18 if preset == "balanced" else opset)


@pytest.mark.sampled
@pytest.mark.parametrize("opset", [26, 27, 28])
@pytest.mark.parametrize("policy", [INT4, 'qpolicy 1\nuse "balanced"\n', 'qpolicy 1\nuse "lossless"\n'])
def test_the_newest_opsets_are_kept(opset: int, policy: str, tmp_path: Path) -> None:
    result = _compiled(tmp_path, PLAIN, LINEAR, opset, policy, ir_version=13 if opset < 28 else 14)
    assert (result.passed, _opset(result)) == (True, opset)
    feeds = {"x": random(3, 64, seed=4)}
    before, after = run(result.source, feeds)["y"], run(result.output, feeds)["y"]
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98


def test_functions_are_read_by_the_versions_of_the_model(tmp_path: Path) -> None:
    """As the runtime reads them: Softmax over the last axis alone, though the function names opset 11."""
    body = """g (float[A,2,64] x) => (float[A,B,C] y) { s = my.F(x) y = MatMul(s, w) }
        <domain: "my", opset_import: ["": 11]> F (a) => (b) { b = Softmax(a) }"""
    path = tmp_path / "model.onnx"
    model = parse(body, LINEAR, 17)
    model.opset_import.append(onnx.helper.make_opsetid("my", 1))
    onnx.save(model, path)
    result = qcc.compile(path, "balanced")
    assert result.verification.outputs[0].sqnr > 30
