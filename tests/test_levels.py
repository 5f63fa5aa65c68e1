"""Levels by step: exact whatever the input says, sample by sample, and less noise where sizes differ by step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.ir.errors import ModelError
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.balance.levels import Intervals
from qcc.passes.contract.contract import Context, Edit
from tests import onnx_models
from tests.onnx_models import random

WIDTH, TOKENS, STEPS = 16, 6, 40
EXACT = 1e-5  # of the largest number
NET = """net (float[n, 6, 16] x, {dtype}[{samples}] time) => (float[n, 6, 8] y) {{
    p = MatMul (x, w) q = Add (p, b) r = MatMul (x, u) s = Mul (q, r)
    y = MatMul (s, v)
}}"""
FLAT = """net (float[n, 16] x, float[n] time) => (float[n, 16] y) { y = Gemm (x, w, b) }"""
CONSTANTS = {
    "w": random(WIDTH, WIDTH, seed=1),
    "u": random(WIDTH, WIDTH, seed=2),
    "v": random(WIDTH, 8, seed=3),
    "b": random(WIDTH, seed=4),
}
UNIFORM = np.linspace(0, 1, STEPS, dtype=np.float32)
Data = list[dict[str, np.ndarray]]


def made(folder: Path, text: str = "", samples: str = "n", dtype: str = "float") -> Path:
    text = text or NET.format(samples=samples, dtype=dtype)
    constants = {name: array for name, array in CONSTANTS.items() if f" {name})" in text or f" {name}," in text}
    onnx.save(onnx_models.parse(text, constants, opset=18), folder / "net.onnx")
    return folder / "net.onnx"


def feeds(seed: int, steps: np.ndarray = UNIFORM, tokens: bool = True) -> dict[str, np.ndarray]:
    """Numbers whose size falls by e^4 from the first step to the last."""
    shape = (len(steps), TOKENS, WIDTH) if tokens else (len(steps), WIDTH)
    sizes = np.exp(-4 * steps).reshape(-1, *[1] * (len(shape) - 1))
    return {"x": (random(*shape, seed=seed) * sizes).astype(np.float32), "time": steps}


def levelled(path: Path, data: Data, how: Intervals | None = None) -> tuple[OnnxGraph, OnnxGraph, list[Edit]]:
    graph = OnnxGraph.load(path)
    graph.simplify()

    def watch(graph: OnnxGraph, names: list[str], _held: bool) -> list[dict[str, np.ndarray]]:
        run = graph.runner([one.name for one in graph.inputs], names)
        return [run(one) for one in data]

    names = [one.name for one in graph.weights()]
    after, edits = (how or Intervals("time")).apply(graph, names, Context(watch=watch if data else None))  # type: ignore[arg-type]
    return graph, after, edits


def apart(graph: OnnxGraph, after: OnnxGraph, fed: dict[str, np.ndarray]) -> float:
    one, other = (each.runner([value.name for value in each.inputs], ["y"])(fed)["y"] for each in (graph, after))
    return float(np.abs(one - other).max() / np.abs(one).max())


@pytest.mark.parametrize(("samples", "dtype"), [("n", "float"), ("n", "int64"), ("1", "float")])
def test_the_function_is_kept_at_every_step(tmp_path: Path, samples: str, dtype: str) -> None:
    told = UNIFORM if dtype == "float" else (UNIFORM * 999).astype(np.int64)
    fed = feeds(0) | {"time": told}
    data = [fed] if samples == "n" else [{"x": fed["x"][at : at + 1], "time": told[at : at + 1]} for at in range(STEPS)]
    graph, after, edits = levelled(made(tmp_path, samples=samples, dtype=dtype), data)
    assert [edit.subject for edit in edits if not edit.refused] == ["x", "s"]  # two layers share one
    assert "in 10 intervals" in edits[0].text
    for other in (data[0], {name: array[::-1] * 3 for name, array in data[0].items()}):  # beyond all steps seen, too
        assert apart(graph, after, other) < EXACT
    assert [one.name for one in after.weights()] == [one.name for one in graph.weights()]


def test_a_bias_inside_of_an_op_is_added_behind(tmp_path: Path) -> None:
    fed = feeds(0, tokens=False)
    graph, after, (edit,) = levelled(made(tmp_path, FLAT), [fed])
    assert not edit.refused
    assert apart(graph, after, fed) < EXACT
    assert after.outputs == graph.outputs


def test_it_lowers_the_noise_of_one_static_step(tmp_path: Path) -> None:
    """Relative to the signal at each step, whose sizes are a range of e^4."""
    path, wanted = made(tmp_path), feeds(9)
    graph = OnnxGraph.load(path)
    y = graph.runner(["x", "time"], ["y"])(wanted)["y"]
    noise = {}
    for name, more in {"one": "", "levels": '; levels = intervals(input "time")'}.items():
        policy = load_text(
            f"qpolicy 1\nrule linear {{ weights = int8 channel; activations = static{more} }}\n", schema()
        )
        result = qcc.compile(path, policy, data=[feeds(seed) for seed in range(3)], output=tmp_path / f"{name}.onnx")
        found = qcc.Session(result.output).run(wanted)["y"]
        noise[name] = np.mean(((found - y) ** 2).sum((1, 2)) / (y**2).sum((1, 2)))
    assert noise["levels"] < 0.2 * noise["one"]
    row = next(one for one in result.rewrites if "levels" in one.action)
    assert len(row.treated) == 2 and row.error < EXACT


@pytest.mark.parametrize(
    ("text", "data", "why"),
    [
        ("", [], "no data is given"),
        ("", [feeds(0, np.full(4, 0.5, np.float32))], "the same in all calibration data"),
        ("", [feeds(0) | {"x": random(STEPS, TOKENS, WIDTH).clip(-1, 1).round()}], "as large at every"),
        (
            NET.format(samples="n", dtype="float").replace("[n, 6, 16]", "[m, 6, 16]"),
            [feeds(0)],
            "not known to be that",
        ),
        (FLAT.replace("(x, w, b)", "<transA = 1> (x, w, b)").replace("[n, 16] x", "[16, n] x"), [feeds(0)], "no plain"),
    ],
)
def test_sites_reject(tmp_path: Path, text: str, data: Data, why: str) -> None:
    graph, after, edits = levelled(made(tmp_path, text), data)
    assert any(edit.refused and why in edit.text for edit in edits)
    assert all(edit.refused for edit in edits if edit.subject == "x")
    assert after.digest() == graph.digest() or any(not edit.refused for edit in edits)


def test_an_input_of_several_numbers_reject(tmp_path: Path) -> None:
    graph, after, edits = levelled(made(tmp_path), [feeds(0)], replace(Intervals("time"), input="x"))
    assert edits and all(edit.refused and "`x` is no single number for a sample" in edit.text for edit in edits)
    assert after.digest() == graph.digest()


def test_an_input_that_is_none_reject(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no input `sigma`") as caught:
        levelled(made(tmp_path), [feeds(0)], replace(Intervals("time"), input="sigma"))
    assert caught.value.code == "Q741" and "`time`" in (caught.value.help or "")
