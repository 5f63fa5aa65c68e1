"""Formats of one grid: which numbers the language's words name, what they lose, and when they are taken."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.formats import encoding_of
from qcc.compiler.plan.values import encoding_named
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import Blocked, named
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid, TableGrid
from qcc.ir.encoding.search import Clip, uneven
from qcc.ir.errors import Refused

SPELLINGS = {
    "fp4": "fp4 group 32 scale fp16",
    "fp4 e2m1 group 16 scale ue5m3": "fp4 group 16 scale ue5m3",
    "fp6": "fp6 e2m3 group 32 scale fp16",
    "fp6 channel e3m2": "fp6 e3m2 channel scale fp16",
    "fp8": "fp8 e4m3 channel scale fp16",
    "fp8 e5m2 tensor scale fp32": "fp8 e5m2 tensor scale fp32",
    "mxfp6": "fp6 e2m3 group 32 scale e8m0",
    "mxfp6 e3m2": "fp6 e3m2 group 32 scale e8m0",
    "mxfp8": "fp8 e4m3 group 32 scale e8m0",
    "mxfp8 e5m2": "fp8 e5m2 group 32 scale e8m0",
    "mxint8": "int8 group 32 sym scale e8m0",
    "bfp 4 group 32": "int4 group 32 sym scale e8m0",
    "bfp5": "int5 group 16 sym scale e8m0",
    "dynamic8": "dynamic8 group 2048 scale fp16",
    "int2 mid channel": "int2 mid channel scale fp16",
    "int8 group 32 mid scale e4m3": "int8 mid group 32 scale e4m3",
    "int1 mid": "int1 channel scale fp16",
}
TYPES = {
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
}
ENDS = {"fp6_e2m3": 7.5, "fp6_e3m2": 28.0, "fp8_e4m3": 448.0, "fp8_e5m2": 57344.0, "ue5m3": 114688.0}


def spelled(text: str) -> Encoding:
    (rule,) = load_text(f"qpolicy 1\nrule any {{ weights = {text} }}", schema()).rules
    found = encoding_of(rule.assignments[0].value[0])  # type: ignore[index]  # formats, since it is `weights`
    assert found is not None
    return found


def error(text: str, matrix: np.ndarray, clip: Clip = "mse") -> float:
    """Relative squared error."""
    lost = encode(matrix, spelled(text), clip).decode() - matrix
    return float(np.vdot(lost, lost) / np.vdot(matrix, matrix))


def drawn(seed: int = 0, out: int = 96, inner: int = 384) -> np.ndarray:
    """Normal weights, each row and input of a size of its own."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.standard_normal((out, 1)) / 3) * np.exp(random.standard_normal((1, inner)) / 3)
    return np.asarray(random.standard_normal((out, inner)) * sizes / 20, np.float32)


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_spelling_names_an_encoding_that_reads_back(text: str) -> None:
    found = spelled(text)
    assert found.text == SPELLINGS[text]
    assert encoding_named(found.text) == found
    assert isinstance(found, Blocked)
    if "tensor" not in text:
        assert named(found.name).text == found.text.replace("fp32", "fp16")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("fp6 e4m3", "Q210"),
        ("fp8 e4m3 e5m2", "Q209"),
        ("int4 asym mid", "Q209"),
        ("mxfp8 group 32", "Q210"),
        ("bfp", "Q211"),
        ("bfp 9", "Q204"),
        ("int2 mid scale ue5m4", "Q203"),
    ],
)
def test_what_it_is_not_is_told(text: str, code: str) -> None:
    with pytest.raises(QccError) as caught:
        spelled(text)
    assert code in [one.code for one in caught.value.diagnostics]


@pytest.mark.parametrize("name", TYPES)
def test_small_floats_are_those_of_ocp_and_saturate(name: str) -> None:
    grid, dtype = TableGrid(name), np.dtype(TYPES[name])
    codes = np.arange(1 << grid.bits, dtype=np.uint8)
    wanted = codes.view(dtype).astype(np.float32)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(grid.numbers(codes)[finite], wanted[finite])
    assert np.isnan(grid.numbers(codes)[~finite]).all()
    assert grid.highest == -grid.lowest == ENDS[name]
    beyond = grid.codes(np.array([1e9, -1e9, np.float32(ENDS[name])], np.float32))
    np.testing.assert_array_equal(grid.numbers(beyond), [ENDS[name], -ENDS[name], ENDS[name]])
    values = np.random.default_rng(0).uniform(-ENDS[name], ENDS[name], 500).astype(np.float32)
    np.testing.assert_array_equal(grid.round(values), values.astype(dtype).astype(np.float32))


def test_scales_without_a_sign_have_five_bits_of_exponent() -> None:
    numbers = TableGrid("ue5m3").table
    assert np.isnan(numbers[255]) and numbers[254] == ENDS["ue5m3"] and numbers[1] == 2.0**-17
    low = np.arange(127, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(numbers[64 : 64 + 119], low[8:] / 2)  # e4m3's, whose exponents begin at -6


@pytest.mark.parametrize(("size", "told"), [(1e7, "does not fit ue5m3"), (1e-7, "lost in ue5m3")])
def test_a_scale_beyond_its_numbers_is_refused(size: float, told: str) -> None:
    matrix = np.full((4, 32), size, np.float32)
    with pytest.raises(Refused, match=told):
        encode(matrix, spelled("fp4 group 16 scale ue5m3"))
    encode(matrix, spelled("fp4 group 16 scale e8m0"))


@pytest.mark.parametrize("seed", range(3))
def test_what_formats_lose_is_in_order(seed: int) -> None:
    """On normal weights: a scale of its own number is worth more than a power of two, and needs no second one."""
    matrix = drawn(seed)
    mx, nv, ue = (error(text, matrix) for text in ("mxfp4", "nvfp4", "fp4 group 16 scale ue5m3"))
    assert nv <= error("int4 group 32", matrix) < mx
    assert abs(ue / nv - 1) <= 0.01
    assert error("mxfp8", matrix) < error("mxfp6", matrix) < mx
    assert error("mxint8", matrix) < error("bfp 6 group 32", matrix) < error("bfp 4 group 32", matrix)


def test_a_power_of_two_is_the_better_neighbour() -> None:
    matrix = drawn(out=8, inner=64)
    encoded = encode(matrix, spelled("mxfp4"))
    code, blocks = encoded.parts["scale.codes"].astype(np.int32), matrix.reshape(8, 2, 32)
    grid = TableGrid("fp4")

    def lost(exponent: np.ndarray) -> np.ndarray:
        step = np.ldexp(np.float32(1), exponent - 127)[..., None]
        return np.asarray(((grid.round(blocks / step) * step - blocks) ** 2).sum(-1))

    assert (lost(code) <= np.minimum(lost(code - 1), lost(code + 1))).all()


def test_dynamic8_keeps_what_spans_decades() -> None:
    """Asked are 0.2 of int8's mean relative error on a log-normal distribution of sigma 2."""
    matrix = np.exp(2 * np.random.default_rng(0).standard_normal((64, 2048))).astype(np.float32)
    errors = [
        float(np.mean(np.abs(encode(matrix, spelled(text)).decode() - matrix) / matrix))
        for text in ("dynamic8 group 2048", "int8 group 2048")
    ]
    assert errors[0] <= 0.2 * errors[1]
    assert error("dynamic8", drawn()) > error("int8 group 2048", drawn())
    numbers = TableGrid("dynamic8").table
    assert len(np.unique(numbers)) == 256 and numbers.max() == 1 and numbers.min() > -1 and 0 in numbers


@pytest.mark.slow
def test_the_allocator_takes_dynamic8_only_where_it_is_better(tmp_path: Path) -> None:
    """Both take the same space: a normal weight gets int8, whatever the order of candidates."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 64] x) => (float[n, 40] y)'
        " { h = MatMul (x, first) a = Relu (h) y = MatMul (a, second) }"
    )
    for name, matrix in (("first", drawn(0, 64, 96)), ("second", drawn(1, 96, 40))):
        model.graph.initializer.append(numpy_helper.from_array(matrix, name))
    onnx.save(model, tmp_path / "net.onnx")
    for weights in ("dynamic8 | int8 group 2048", "int8 group 2048 | dynamic8"):
        text = f"qpolicy 1\nrule linear {{ weights = {weights} }}\nbudget {{ size <= 60% }}\nminimize output_error\n"
        result = qcc.compile(tmp_path / "net.onnx", text, output=tmp_path / "out.onnx")
        assert {row.format for row in result.layers} == {"int8 group 2048 sym scale fp16"}


@pytest.mark.parametrize(
    "text", ["int2 mid channel", "int2 channel", "int2 channel asym", "int1 mid", "int3 mid group 24"]
)
@pytest.mark.parametrize("seed", range(2))
def test_the_mean_magnitude_tells_the_range_and_a_search_does_no_worse(text: str, seed: int) -> None:
    heavy = np.random.default_rng(seed).standard_t(3, (40, 384)).astype(np.float32)  # has weights far off
    for matrix in (drawn(seed), heavy):
        absmax, statsq, searched = (error(text, matrix, clip) for clip in ("absmax", "statsq", "mse"))
        assert searched <= statsq
        if "channel" in text:
            assert statsq <= absmax


def test_statsq_is_the_published_grid() -> None:
    """Twice the mean magnitude of a row, numbers at halves of steps: OFQ, section 3.1."""
    matrix = drawn(out=6, inner=50)
    got = encode(matrix, spelled("int2 mid channel scale fp32"), "statsq").decode()
    scale = 2 * np.abs(matrix).mean(1, keepdims=True)
    levels = (np.floor(np.clip(matrix / scale, -1, 1 - 1e-6) * 2) + 0.5) / 2
    np.testing.assert_allclose(got, levels * scale, rtol=0, atol=1e-6)  # weights are below one


def test_two_bits_without_a_zero_lose_less_on_whole_rows() -> None:
    matrix = drawn()
    assert error("int2 mid channel", matrix) < 0.95 * error("int2 channel", matrix)


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.85), (3, 0.9), (4, 0.95)])
def test_a_sign_puts_the_odd_level_of_integers_where_a_block_needs_it(bits: int, gain: float) -> None:
    matrix = np.random.default_rng(3).standard_normal((64, 256)).astype(np.float32)
    signed, unsigned, wide = (error(f"int{bits} group 32 scale {scale}", matrix) for scale in ("e4m3", "ue5m3", "fp16"))
    assert signed < gain * unsigned
    assert signed < 1.1 * wide
    assert error("int4 mid group 32 scale e4m3", matrix) < 1.1 * error("int4 mid group 32 scale fp16", matrix)


def test_scales_without_a_sign_have_none_reject() -> None:
    matrix = np.random.default_rng(4).standard_normal((16, 128)).astype(np.float32)
    for scale in ("ue5m3", "e8m0"):
        assert encode(matrix, spelled(f"int3 group 32 scale {scale}")).scales.scale.min() > 0
    assert encode(matrix, spelled("int3 group 32 scale e4m3")).scales.scale.min() < 0


def test_the_largest_of_a_block_may_be_a_number_before_the_last() -> None:
    """Steps of 4, 3, 2 are half as wide as that from 4 to 6."""
    block = np.array([[4, 3, 3, 2, 2, 1, 1, 0.5] * 2], np.float32)
    stored = encode(block, spelled("fp4 group 16 scale fp32"))
    np.testing.assert_allclose(stored.decode(), block, rtol=1e-6)


def test_even_grids_are_not_stretched_reject() -> None:
    assert not uneven(IntGrid(4)) and not uneven(IntGrid(3, False)) and not uneven(TableGrid("int1"))
    assert uneven(TableGrid("fp4")) and uneven(TableGrid("nf4"))
