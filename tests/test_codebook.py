"""Codebooks: what they store, what they lose, and tuples rounded whole with errors fed on."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper, parser, save

import qcc
from qcc.compiler.plan.values import encoding_named
from qcc.ir.encoding.fit import encode, encoded, fitted
from qcc.ir.encoding.formats.composed.codebook import Codebook
from qcc.ir.errors import Refused
from qcc.passes.rounding.gptq import output_error, round_columns
from tests.test_grid_formats import drawn, error, spelled

DAMPING = 0.01


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("codebook(16)", 4 * 64 * 96 + 16 * 16 + 16 * 64),
        ("codebook(256, size = 4)", 8 * 64 * 24 + 16 * 256 * 4 + 16 * 64),
        ("codebook(4, size = 8, group = 32)", 2 * 64 * 12 + 16 * 4 * 8 + 16 * 64 * 3),
    ],
)
def test_it_reads_back_and_takes_what_its_parts_take(text: str, bits: int) -> None:
    found = spelled(text)
    assert found.text == text and encoding_named(text) == found
    assert found.size_bits((64, 96)) == bits


@pytest.mark.parametrize("text", ["codebook(5)", "codebook(16, size = 3)", "codebook(2)", "codebook(512)"])
def test_other_tables_are_none(text: str) -> None:
    with pytest.raises(qcc.QccError):
        spelled(text)


def test_a_table_of_what_there_is_loses_nothing() -> None:
    """Rows of four numbers and a size of their own come back, up to fp16."""
    random = np.random.default_rng(0)
    rows = np.tile(np.linspace(-1, 1, 4), (32, 16)) * np.linspace(0.5, 1, 32)[:, None]
    matrix = random.permuted(rows, axis=1).astype(np.float32)
    stored = encode(matrix, Codebook(4))
    assert np.abs(stored.decode() - matrix).max() < 2e-3  # fp16's digits, of numbers up to one
    again = encode(matrix, Codebook(4))
    assert all((again.parts[name] == part).all() for name, part in stored.parts.items())


def test_learned_numbers_lose_less_and_tuples_still_less() -> None:
    matrix = np.random.default_rng(0).standard_normal((192, 192)).astype(np.float32)
    even, one, pairs, fours = (
        error(text, matrix)
        for text in ("int2 mid channel", "codebook(4)", "codebook(16, size = 2)", "codebook(256, size = 4)")
    )
    assert fours < 0.9 * one and pairs < 0.98 * one and one < even
    assert error("codebook(16)", matrix) < error("int4 channel", matrix)


def test_inputs_with_power_are_learned_better() -> None:
    random = np.random.default_rng(0)
    matrix = np.concatenate([random.standard_normal((64, 32)), random.uniform(-2, 2, (64, 32))], 1).astype(np.float32)
    power = np.repeat([100.0, 1.0], 32)
    plain, weighted = (encoded(matrix, Codebook(8), fitted(matrix, Codebook(8), power=one)) for one in (None, power))
    lost = [float((np.square(one.decode() - matrix).sum(0) * power).sum()) for one in (plain, weighted)]
    assert lost[1] < lost[0]


@pytest.mark.parametrize("text", ["codebook(8)", "codebook(16, size = 2)", "codebook(64, size = 4, group = 32)"])
@pytest.mark.parametrize("inner", [96, 90])
def test_errors_are_fed_on_by_tuples(text: str, inner: int) -> None:
    """The last tuple may reach beyond the row."""
    random = np.random.default_rng(1)
    inputs = random.standard_normal((400, inner)) @ (random.standard_normal((inner, inner)) / 6 + np.eye(inner))
    gram = (inputs.T @ inputs / 400).astype(np.float32)
    matrix, encoding = drawn(1, 128, inner), spelled(text)
    nearest, fed = encode(matrix, encoding), round_columns(matrix, encoding, gram, DAMPING, "mse")
    assert output_error(matrix, fed, gram) < 0.8 * output_error(matrix, nearest, gram)


def test_single_columns_of_a_tuple_stay() -> None:
    matrix = drawn(0, 8, 16)
    found = fitted(matrix, Codebook(16, 4))
    before = encoded(matrix, Codebook(16, 4), found).decode()
    got = found.round(slice(0, 8), 5, np.full(8, 9.0, np.float32))
    np.testing.assert_array_equal(got, before[:, 5])
    np.testing.assert_array_equal(encoded(matrix, Codebook(16, 4), found).decode(), before)


@pytest.mark.parametrize("size", [1e-30, 1e7])
def test_scales_beyond_fp16_are_refused(size: float) -> None:
    with pytest.raises(Refused, match="fp16"):
        encode(np.full((4, 8), size, np.float32), Codebook(16))


def test_zeros_stay() -> None:
    assert not encode(np.zeros((4, 8), np.float32), Codebook(16, 2)).decode().any()


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_it_compiles(rounding: str, tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 50] x) => (float[n, 40] y) { y = MatMul (x, first) }'
    )
    matrix = drawn(0, 50, 40)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "first"))
    save(model, tmp_path / "net.onnx")
    x = np.random.default_rng(1).standard_normal((300, 50)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    policy = f"qpolicy 1\nrule linear {{ weights = codebook(64, size = 4), rounding = {rounding} }}\n"
    result = qcc.compile(tmp_path / "net.onnx", policy, data=tmp_path / "data.npz")
    assert [row.format for row in result.layers] == ["codebook(64, size = 4)"]
    (y,) = onnxruntime.InferenceSession(result.output).run(None, {"x": x})
    assert np.square(y - x @ matrix).mean() < 0.2 * np.square(x @ matrix).mean()
