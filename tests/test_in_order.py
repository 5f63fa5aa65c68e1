"""Rounding in the order of the model: what later layers can make up for of what those before them lost, they do."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.dsl.load import load_text
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.ops import Weight
from qcc.ir.graph.view import MatrixView
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.regions.joined import Joins
from qcc.passes.contract.contract import Context
from qcc.passes.contract.moments import Moments
from qcc.passes.contract.trust import aimed, judged
from qcc.passes.rounding.qronos import Qronos
from tests import onnx_models

WIDTH, SAMPLES = 64, 240
CHAIN = f"""g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] z) {{
    a = MatMul(x, w1)
    b = Relu(a)
    c = MatMul(b, w2)
    d = Add(c, x)
    e = MatMul(d, w3)
    f = Relu(e)
    h = MatMul(f, w4)
    z = Add(h, d)
}}"""


def chain() -> onnx.ModelProto:
    return onnx_models.parse(
        CHAIN, {f"w{at}": onnx_models.random(WIDTH, WIDTH, seed=at) / np.float32(4) for at in range(1, 5)}
    )


def feeds(seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)) / WIDTH**0.5 + np.eye(WIDTH)
    rows = (rng.standard_normal((SAMPLES, WIDTH)) @ mix).astype(np.float32)
    return [{"x": row[None]} for row in rows]


def lost(folder: Path, rounding: str, data: list[dict[str, np.ndarray]] | None) -> float:
    onnx.save(chain(), folder / "model.onnx")
    policy = load_text(f"qpolicy 1\nrule any {{ weights = int2 group 16; rounding = {rounding} }}", schema())
    qcc.compile(folder / "model.onnx", policy, output=folder / "out.onnx", data=data)
    wanted, got = (qcc.Session(folder / name) for name in ("model.onnx", "out.onnx"))
    rows = {"x": np.concatenate([one["x"] for one in feeds(1)])}
    before, after = wanted.run(rows)["z"], got.run(rows)["z"]
    return float(np.sum((after - before) ** 2) / np.sum(before**2))


@pytest.mark.slow
def test_layers_make_up_for_those_before_them(tmp_path: Path) -> None:
    parallel, ordered = (lost(tmp_path, rounding, feeds(0)) for rounding in ("gptq", "qronos"))
    assert ordered < 0.9 * parallel


@pytest.mark.slow
def test_descent_goes_on_from_there(tmp_path: Path) -> None:
    ordered, descended = (lost(tmp_path, rounding, feeds(0)) for rounding in ("qronos", "descent(start = qronos)"))
    assert descended < 1.02 * ordered  # each layer is no worse on samples held out; all together may be, by a little


@pytest.mark.slow
def test_what_is_decided_by_the_allocator_is_rounded_in_order_too(tmp_path: Path) -> None:
    onnx.save(chain(), tmp_path / "model.onnx")
    policy = load_text(
        "qpolicy 1\nrule any { weights = int{2,4} group 16; rounding = qronos }\nbudget { size <= 60% }", schema()
    )
    result = qcc.compile(tmp_path / "model.onnx", policy, output=tmp_path / "out.onnx", data=feeds(0))
    assert result.written


@pytest.mark.slow
def test_without_data_it_is_rounded_as_by_gptq(tmp_path: Path) -> None:
    """Generated data is of one kind for both; nothing fails where samples are few."""
    assert lost(tmp_path, "qronos", feeds(0)[:1]) < 1


@pytest.mark.parametrize(
    ("body", "beside"),
    [
        ("b = Add(y, bias)  z = Add(b, x)", ("x",)),
        ("b = Add(y, x)  z = Add(b, x)", ("x", "x")),
        ("b = Add(y, bias)  z = Relu(b)", ()),
        ("z = Relu(y)", ()),
        ("b = Mul(y, bias)  z = Add(b, x)", None),
        ("b = Add(y, x)  c = Relu(y)  z = Add(b, c)", ()),
    ],
)
def test_what_is_added_to_a_result(tmp_path: Path, body: str, beside: tuple[str, ...] | None) -> None:
    text = f"g (float[N,{WIDTH}] x) => (float[N,{WIDTH}] z) {{ y = MatMul(x, w1)  {body} }}"
    constants = {"w1": onnx_models.random(WIDTH, WIDTH, seed=1), "bias": onnx_models.random(WIDTH, seed=2)}
    onnx.save(onnx_models.parse(text, constants), tmp_path / "model.onnx")
    assert Joins(OnnxGraph.load(tmp_path / "model.onnx")).beside("y") == beside


def paired(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Moments]:
    """A matrix, compressed inputs, what its layer is to make of them, and the moments of both."""
    rng = np.random.default_rng(rows)
    matrix = rng.standard_normal((8, 16)).astype(np.float32)
    fine = rng.standard_normal((rows, 16)).astype(np.float32)
    inputs = (fine + 0.3 * rng.standard_normal((rows, 16))).astype(np.float32)
    wanted = fine @ matrix.T
    missing, held = wanted - inputs @ matrix.T, slice(0, rows // 4)
    pulls = [missing[part].T @ inputs[part] / len(inputs[part]) for part in (slice(None), held)]
    grams = [inputs[part].T @ inputs[part] / len(inputs[part]) for part in (slice(None), held)]
    return matrix, inputs, wanted, Moments(grams[0], rows, grams[1], rows // 4, pull=pulls[0], held_pull=pulls[1])


WEIGHT = Weight("w", "w", MatrixView((8, 16), (0,)), "float32", ())


def test_the_aim_is_the_least_squares_answer() -> None:
    matrix, inputs, wanted, moments = paired(4000)
    found = aimed(WEIGHT, matrix, Context(moments={"w": moments}), moments.gram, 1e-6)
    best = np.linalg.lstsq(inputs, wanted, rcond=None)[0].T
    assert np.abs(found - best).max() < 1e-3  # damping of a millionth, in float32


def test_what_is_told_is_the_error_on_samples_held_out() -> None:
    matrix, inputs, wanted, moments = paired(400)
    encoding = Blocked(IntGrid(4), group(16))
    by = judged(WEIGHT, matrix, encoding, moments, 0)
    rounded = Qronos().encode(WEIGHT, matrix, encoding, Context(moments={"w": moments}, grams={"w": moments.gram}))
    held = slice(0, 100)

    def error(one: np.ndarray) -> float:
        return float(np.sum((wanted[held] - inputs[held] @ one.T) ** 2)) / 100

    assert by.lost(rounded.decode()) == pytest.approx(error(rounded.decode()) - error(matrix), abs=1e-3)
    assert by.lost(rounded.decode()) < 0


CONVOLUTIONS = """g (float[N,8,9,9] x) => (float[N,8,9,9] z) {
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w1)
    b = Relu(a)
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b, w2)
    d = Add(c, x)
    z = Conv <kernel_shape = [1, 1]> (d, w3)
}"""


@pytest.mark.slow
def test_convolutions_make_up_for_the_stream_too(tmp_path: Path) -> None:
    kernels = {"w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 1, 1)}
    drawn = {
        name: onnx_models.random(*shape, seed=at) / np.float32(6) for at, (name, shape) in enumerate(kernels.items())
    }
    onnx.save(onnx_models.parse(CONVOLUTIONS, drawn), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((8, 8)) / 8**0.5 + np.eye(8)
    images = np.einsum("ncyx,cd->ndyx", rng.standard_normal((48, 8, 9, 9)), mix).astype(np.float32)
    found = []
    for rounding in ("gptq", "qronos"):
        policy = load_text(f"qpolicy 1\nrule conv {{ weights = int3 channel; rounding = {rounding} }}", schema())
        data = [{"x": one[None]} for one in images[:32]]
        qcc.compile(tmp_path / "model.onnx", policy, output=tmp_path / "out.onnx", data=data)
        wanted, got = (qcc.Session(tmp_path / name).run({"x": images[32:]})["z"] for name in ("model.onnx", "out.onnx"))
        found.append(float(np.sum((got - wanted) ** 2) / np.sum(wanted**2)))
    assert found[1] < found[0]
