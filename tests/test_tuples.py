"""Formats of which one code stands for neighbours: gptq rounds tuples whole, and scales are what fp16 holds."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper, parser, save

import qcc
from qcc.ir.encoding.fit import encode, encoded, fitted
from qcc.ir.errors import Refused
from qcc.passes.rounding.gptq import output_error, round_columns
from tests.test_grid_formats import drawn, spelled

DAMPING = 0.01
FED = {
    "codebook(8)": (128, 0.8),
    "codebook(16, size = 2)": (128, 0.8),
    "codebook(64, size = 4, group = 32)": (128, 0.8),
    "lattice()": (48, 0.85),
    "lattice(group = 32)": (48, 0.85),
}
"""How many rows, and what feeding errors on leaves of the error at most."""
TUPLES = ["codebook(16, size = 4)", "lattice()"]


@pytest.mark.parametrize("text", FED)
@pytest.mark.parametrize("inner", [96, 90])
def test_errors_are_fed_on_by_tuples(text: str, inner: int) -> None:
    """The last tuple may reach beyond the row."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((400, inner)) @ (random.standard_normal((inner, inner)) / 6 + np.eye(inner))
    gram = (inputs.T @ inputs / 400).astype(np.float32)
    rows, most = FED[text]
    matrix, encoding = drawn(1, rows, inner), spelled(text)
    nearest, fed = encode(matrix, encoding), round_columns(matrix, encoding, gram, DAMPING, "mse")
    assert output_error(matrix, fed, gram) < most * output_error(matrix, nearest, gram)


@pytest.mark.parametrize("text", TUPLES)
def test_single_columns_of_a_tuple_stay(text: str) -> None:
    matrix, encoding = drawn(0, 8, 16), spelled(text)
    found = fitted(matrix, encoding)
    before = encoded(matrix, encoding, found).decode()
    got = found.round(slice(0, 8), 5, np.full(8, 9.0, np.float32))
    np.testing.assert_array_equal(got, before[:, 5])
    np.testing.assert_array_equal(encoded(matrix, encoding, found).decode(), before)


@pytest.mark.parametrize("text", [*TUPLES, "codebook(16)"])
@pytest.mark.parametrize("size", [1e-30, 1e7])
def test_scales_beyond_fp16_are_refused(text: str, size: float) -> None:
    with pytest.raises(Refused, match="fp16"):
        encode(np.full((4, 8), size, np.float32), spelled(text))


@pytest.mark.parametrize("text", TUPLES)
def test_zeros_stay(text: str) -> None:
    assert not encode(np.zeros((4, 8), np.float32), spelled(text)).decode().any()


@pytest.mark.slow
@pytest.mark.parametrize(("text", "outer"), [("codebook(64, size = 4)", 40), ("lattice()", 640)])
@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_they_compile(text: str, outer: int, rounding: str, tmp_path: Path) -> None:
    """Beside the tables of a lattice few weights are nothing: it takes more of them for a file to get smaller."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[n, 50] x) => (float[n, {outer}] y) {{ y = MatMul (x, w) }}'
    )
    matrix = drawn(0, 50, outer)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "w"))
    save(model, tmp_path / "net.onnx")
    x = np.random.default_rng(1).standard_normal((300, 50)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    policy = f"qpolicy 1\nrule linear {{ weights = {text}, rounding = {rounding} }}\n"
    result = qcc.compile(tmp_path / "net.onnx", policy, data=tmp_path / "data.npz")
    assert [row.format for row in result.layers] == [text]
    (y,) = onnxruntime.InferenceSession(result.output).run(None, {"x": x})
    assert np.square(y - x @ matrix).mean() < 0.2 * np.square(x @ matrix).mean()
