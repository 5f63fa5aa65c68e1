"""Tuples of a lattice: which there are, that the nearest is found, what they lose, and that gptq chooses them whole."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper, parser, save

import qcc
from qcc.compiler.plan.values import encoding_named
from qcc.ir.encoding.fit import encode, encoded, fitted
from qcc.ir.encoding.formats.composed.lattice import Lattice, nearest, tables
from qcc.ir.errors import Refused
from qcc.passes.rounding.gptq import output_error, round_columns
from tests.test_grid_formats import drawn, error, spelled

DAMPING = 0.01


def every() -> np.ndarray:
    """All tuples ``[65536, 8]``, as they are decoded."""
    known = tables()
    first, second = np.divmod(np.arange(1 << 16), 256)
    return np.asarray((known.first[first] * known.second[second]) @ known.added)


@pytest.mark.parametrize(("text", "bits"), [("lattice()", 16 * 64), ("lattice(group = 32)", 16 * 64 * 3)])
def test_it_reads_back_and_takes_what_its_parts_take(text: str, bits: int) -> None:
    found = spelled(text)
    assert found.text == text and encoding_named(text) == found
    assert found.size_bits((64, 96)) == 2 * 64 * 96 + bits


def test_the_tuples_are_those_of_the_lattice() -> None:
    """Every one differs, and is half an odd number everywhere beside its shift, with an even sum."""
    found = every()
    assert len(np.unique(found, axis=0)) == 1 << 16
    shift = np.where(np.arange(1 << 16) % 256 < 128, 0.25, -0.25)[:, None]
    halves = found - shift
    assert (np.abs(halves) % 1 == 0.5).all() and (halves.sum(1) % 2 == 0).all()


def test_the_nearest_is_found() -> None:
    wanted = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    known, codes = every(), nearest(wanted)
    got = np.square(known[codes[0].astype(int) * 256 + codes[1]] - wanted).sum(1)
    best = np.array([np.square(known - one).sum(1).min() for one in wanted])
    assert (got >= best - 1e-4).all() and got.mean() < 1.001 * best.mean()  # the sign that turns may be another's


def test_a_tuple_comes_back() -> None:
    found = every()[:: 1 << 6].astype(np.float32)
    codes = nearest(found)
    np.testing.assert_array_equal(every()[codes[0].astype(int) * 256 + codes[1]], found)


def test_it_loses_less_than_integers_of_more_bits() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 384)).astype(np.float32)
    assert error("lattice()", matrix) < 0.85 * error("int2 group 32", matrix)
    assert error("lattice(group = 64)", matrix) < error("lattice()", matrix)
    assert error("stack(lattice(), codebook(256, size = 8))", matrix) < 0.85 * error("int3 group 128", matrix)


@pytest.mark.parametrize("text", ["lattice()", "lattice(group = 32)"])
@pytest.mark.parametrize("inner", [96, 90])
def test_errors_are_fed_on_by_tuples(text: str, inner: int) -> None:
    """The last tuple may reach beyond the row."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((400, inner)) @ (random.standard_normal((inner, inner)) / 6 + np.eye(inner))
    gram = (inputs.T @ inputs / 400).astype(np.float32)
    matrix, encoding = drawn(1, 48, inner), spelled(text)
    to_nearest, fed = encode(matrix, encoding), round_columns(matrix, encoding, gram, DAMPING, "mse")
    assert output_error(matrix, fed, gram) < 0.85 * output_error(matrix, to_nearest, gram)


def test_single_columns_of_a_tuple_stay() -> None:
    matrix = drawn(0, 8, 16)
    found = fitted(matrix, Lattice())
    before = encoded(matrix, Lattice(), found).decode()
    got = found.round(slice(0, 8), 5, np.full(8, 9.0, np.float32))
    np.testing.assert_array_equal(got, before[:, 5])
    np.testing.assert_array_equal(encoded(matrix, Lattice(), found).decode(), before)


@pytest.mark.parametrize("size", [1e-30, 1e7])
def test_scales_beyond_fp16_are_refused(size: float) -> None:
    with pytest.raises(Refused, match="fp16"):
        encode(np.full((4, 8), size, np.float32), Lattice())


def test_zeros_stay() -> None:
    assert not encode(np.zeros((4, 8), np.float32), Lattice()).decode().any()


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_it_compiles(rounding: str, tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 50] x) => (float[n, 640] y) { y = MatMul (x, first) }'
    )
    matrix = drawn(0, 50, 640)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "first"))
    save(model, tmp_path / "net.onnx")
    x = np.random.default_rng(1).standard_normal((300, 50)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    policy = f"qpolicy 1\nrule linear {{ weights = lattice(), rounding = {rounding} }}\n"
    result = qcc.compile(tmp_path / "net.onnx", policy, data=tmp_path / "data.npz")
    assert [row.format for row in result.layers] == ["lattice()"]
    (y,) = onnxruntime.InferenceSession(result.output).run(None, {"x": x})
    assert np.square(y - x @ matrix).mean() < 0.2 * np.square(x @ matrix).mean()
