"""Recurrent and Einsum weights: what they decode to is what ONNX Runtime multiplies by."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, group
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.ir.graph.ops import Array, Kind
from tests.onnx_models import Case, emit, loaded, random, run

TOLERANCE = 1e-5  # float32: the same products, summed in another order at most
X = random(5, 2, 64, seed=1)


def _recurrent(op: str, gates: int, directions: int = 1, attributes: str = "", more: str = "") -> Case:
    hidden = 16
    weights: dict[str, Array] = {
        "w": random(directions, gates * hidden, 64) / 8,
        "r": random(directions, gates * hidden, hidden) / 4,
        "b": random(directions, 2 * gates * hidden),
    }
    body = f"g (float[S,N,64] x) => (y, h) {{ y, h = {op} <hidden_size={hidden} {attributes}> (x, w, r, b{more}) }}"
    body = body.replace("(y, h) {", f"(float[S,{directions},N,{hidden}] y, float[{directions},N,{hidden}] h) {{", 1)
    return Case(body, weights, {"x": X})


def _einsum(equation: str, w: Array, x: Array, rank: int, swapped: bool = False) -> Case:
    reads = "w, x" if swapped else "x, w"
    sizes, made = ",".join("ABCD"[: x.ndim]), ",".join("EFGH"[:rank])
    body = f'g (float[{sizes}] x) => (float[{made}] y) {{ y = Einsum <equation="{equation}"> ({reads}) }}'
    return Case(body, {"w": w}, {"x": x})


CASES = {
    "lstm": _recurrent("LSTM", 4),
    "lstm_both_ways": _recurrent("LSTM", 4, 2, ', direction="bidirectional"'),
    "lstm_reverse": _recurrent("LSTM", 4, 1, ', direction="reverse"'),
    "gru": _recurrent("GRU", 3),
    "gru_reset": _recurrent("GRU", 3, 2, ', linear_before_reset=1, direction="bidirectional"'),
    "rnn": _recurrent("RNN", 1, 1, ', activations=["Relu"]'),
    "einsum_heads": _einsum("bsd,dhk->bhsk", random(64, 4, 16), X, 4),
    "einsum_left": _einsum("od, bsd -> bso", random(32, 64), X, 3, swapped=True),
    "einsum_implicit": _einsum("ij,jk", random(64, 32), random(3, 64), 2),
    "einsum_experts": _einsum("end,edf->enf", random(5, 64, 8), X, 3),
    "einsum_dots": _einsum("...d,df->...f", random(64, 8), X, 3),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("encoding", [Blocked(IntGrid(8), CHANNEL), Blocked(IntGrid(3), group(16))], ids=str)
def test_codes_decode_to_the_layout_that_the_op_reads(name: str, encoding: Blocked, tmp_path: Path) -> None:
    case = CASES[name]
    emitted = emit(case, encoding, DECODED, tmp_path)
    got = run(emitted.path, case.feeds)
    for output, wanted in emitted.expected.items():
        assert np.abs(got[output] - wanted).max() <= TOLERANCE * np.abs(wanted).max(), output


def test_rows_are_the_channels_of_gates(tmp_path: Path) -> None:
    into, hidden = loaded(CASES["lstm_both_ways"], tmp_path).weights()
    assert (into.shape, hidden.shape) == ((2 * 64, 64), (2 * 64, 16))
    assert (into.name, hidden.name) == ("node.input", "node.hidden")
    assert into.kinds == hidden.kinds == {Kind.RECURRENT}
    assert (into.layers[0].input, hidden.layers[0].input) == ("x", "")


def test_columns_of_an_equation_are_what_is_summed(tmp_path: Path) -> None:
    shapes = {name: loaded(case, tmp_path).weights()[0].shape for name, case in CASES.items() if "einsum" in name}
    assert shapes == {
        "einsum_heads": (64, 64),
        "einsum_left": (32, 64),
        "einsum_implicit": (32, 64),
        "einsum_experts": (5 * 8, 64),
        "einsum_dots": (8, 64),
    }


@pytest.mark.parametrize("equation", ["bsd,dd->bsd", "bsd,df->bsdf", "bsd,df->bs", "bsd,ef->bsd"])
def test_an_equation_without_a_product_has_no_weight_reject(equation: str, tmp_path: Path) -> None:
    case = _einsum(equation, random(64, 64), X, len(equation.partition("->")[2]))
    assert not loaded(case, tmp_path).weights()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["balanced", "tiny"])
def test_presets_take_them(preset: str, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(_recurrent("LSTM", 4, 2, ', direction="bidirectional"').proto(), model)
    policy = tmp_path / "loose.qpolicy"  # so small a model meets no budget
    policy.write_text(f'qpolicy 1\nuse "{preset}"\nbudget {{ size <= 90% }}\nverify {{ cosine >= 0.5 }}\n', "utf-8")
    assert all(row.format for row in qcc.compile(model, policy).layers)
