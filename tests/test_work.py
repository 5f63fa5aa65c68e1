"""Energy and activations are sums that one can do by hand, and rows of the allocator like any other."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.costs import ACTIVATIONS, ENERGY, Meter
from qcc.compiler.work.count import Count
from qcc.compiler.work.energy_table import energy_table
from qcc.compiler.work.meters import meters_of
from qcc.compiler.work.peak import peak_bytes
from qcc.compiler.work.sizes import ValueSizes
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import ModelError
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest
from tests import onnx_models as models

CONV = (
    "g (float[N,16,8,8] x) => (float[N,10] y) { c = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, k) r = Relu(c) "
    "p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, w) }"
)
READ, MAPS, POSITIONS = 16, 32, 64
CONV_PRODUCTS, LINEAR_PRODUCTS = MAPS * READ * 9 * POSITIONS, MAPS * 10
BOTH = "qpolicy 1\nrule any { weights = int8 channel }\nbudget { energy <= 90%, activations <= 90% }\n"
INT8 = Blocked(IntGrid(8), CHANNEL)
SAME = 1e-9  # of a sum of a few floats


def _graph(body: str, weights: dict[str, np.ndarray]) -> OnnxGraph:
    with tempfile.TemporaryDirectory() as folder:
        return models.loaded(models.Case(body, weights, {}), Path(folder))


def _weights() -> dict[str, np.ndarray]:
    return {"k": models.random(MAPS, READ, 3, 3), "w": models.random(MAPS, 10)}


def _samples() -> Samples:
    return Samples(({"x": models.random(1, 16, 8, 8)},), "test")


def _meters(text: str = BOTH) -> dict[str, Meter]:
    graph = _graph(CONV, _weights())
    found = meters_of(load_text(text, schema()), graph, graph, _samples(), "int8")
    return {one.name: one for one in found}


def test_products_are_those_of_the_definition() -> None:
    graph = _graph(CONV, _weights())
    count = Count(graph, ValueSizes(graph, _samples()))
    assert [count.multiplied(weight) for weight in count.weights] == [CONV_PRODUCTS, LINEAR_PRODUCTS]


def test_what_is_written_is_counted_once() -> None:
    found = _meters()[ACTIVATIONS]
    assert found.whole == 4 * (MAPS * POSITIONS + MAPS + 10)  # the relu writes over the convolution, a reshape nothing


def test_the_peak_is_what_is_alive_at_a_time() -> None:
    ops = "a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Add(c, b) y = MatMul(d, w)"
    body = f"g (float[N,8] x) => (float[N,4] y) {{ {ops} }}"
    weights = {"u": models.random(8, 32), "v": models.random(32, 32), "w": models.random(32, 4)}
    graph = _graph(body, weights)
    count = Count(graph, ValueSizes(graph, Samples(({"x": models.random(1, 8)},), "test")))
    sizes = {name: 4.0 * count.sizes.count(name) for op in count.ops for name in count.writes(op)}
    assert peak_bytes(count, sizes) == 4 * (32 + 32)  # b and c; the sum is written over c, the cut over a


def test_energy_is_bytes_and_products_by_the_table() -> None:
    table, found = energy_table(), _meters()[ENERGY]
    graph = _graph(CONV, _weights())
    linear = graph.weights()[1]
    moved = 4 * (MAPS + 10) * table.cache_byte
    as_is = 4 * linear.params * table.memory_byte + moved + LINEAR_PRODUCTS * table.float32
    assert found.of(linear, None) == pytest.approx(as_is / 1e6, rel=SAME)
    decoded = Encode(INT8, Nearest(), DECODED)
    assert found.of(linear, decoded) == found.of(linear, None)  # floats lie in memory all the same
    kernel = Encode(INT8, Nearest(), KERNEL)
    held = KERNEL.stored_bytes(INT8, linear.shape) * table.memory_byte
    assert found.of(linear, kernel) == pytest.approx((held + moved + LINEAR_PRODUCTS * table.int8) / 1e6, rel=SAME)
    fused = Encode(INT8, Nearest(), FUSED)
    held = FUSED.stored_bytes(INT8, linear.shape) * table.memory_byte
    assert found.of(linear, fused) == pytest.approx((held + moved + LINEAR_PRODUCTS * table.float32) / 1e6, rel=SAME)


def test_a_row_is_found_only_where_it_is_asked_for() -> None:
    assert set(_meters("qpolicy 1\nrule any { weights = int8 | int4 }\nminimize energy\n")) == {ENERGY}
    assert not _meters("qpolicy 1\nrule any { weights = int8 | int4 }\nminimize size\n")


def test_symbols_that_are_multiples_of_others_have_sizes() -> None:
    graph = _graph("g (float[N,4] x) => (float[M,4] y) { y = Concat <axis = 0> (x, x) }", {})
    sizes = ValueSizes(graph, Samples(({"x": models.random(3, 4)},), "test", divisible=False))
    assert sizes.count("x") == 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three products of very different sizes, and data for it."""
    found = tmp_path_factory.mktemp("work")
    ops = "a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) d = Relu(c) y = MatMul(d, w)"
    body = f"g (float[N,64] x) => (float[N,32] y) {{ {ops} }}"
    weights = {"u": models.random(64, 256) / 8, "v": models.random(256, 64) / 16, "w": models.random(64, 32) / 8}
    onnx.save(models.parse(body, weights, opset=21), found / "m.onnx")
    np.savez(found / "d.npz", x=models.random(32, 64))
    return found


POLICY = "qpolicy 1\nrule linear { weights = int4 group 32 | int8 group 32 | float }\n"


def test_a_budget_of_energy_is_kept_and_told(folder: Path, tmp_path: Path) -> None:
    text = POLICY + "budget { energy <= 40% }\n"
    result = qcc.compile(folder / "m.onnx", text, data=folder / "d.npz", output=tmp_path / "o.onnx")
    (row,) = result.costs
    assert row.row == ENERGY and row.after <= 0.4 * row.before
    text = POLICY + "budget { energy <= 99% }"
    loose = qcc.compile(folder / "m.onnx", text, data=folder / "d.npz", output=tmp_path / "l.onnx")
    assert row.after < loose.costs[0].after <= 0.99 * row.before
    assert json.loads((tmp_path / "o.lock").read_text())["costs"][ENERGY]["after"] == row.after


def test_a_budget_of_energy_is_kept_and_told_reject(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(QccError, match="energy") as caught:
        qcc.compile(
            folder / "m.onnx", POLICY + "budget { energy <= 1% }", data=folder / "d.npz", output=tmp_path / "o.onnx"
        )
    (found,) = caught.value.diagnostics
    assert found.code == "Q310" and "uJ" in str(found.note)
    assert not (tmp_path / "o.onnx").exists()


def test_candidates_that_take_the_same_energy_are_told_reject(folder: Path, tmp_path: Path) -> None:
    text = "qpolicy 1\nrule any { weights = int{3,5} channel }\nbudget { energy <= 60% }\n"
    with pytest.raises(QccError, match="energy") as caught:
        qcc.compile(folder / "m.onnx", text, data=folder / "d.npz", output=tmp_path / "o.onnx")
    (found,) = caught.value.diagnostics
    assert found.code == "Q310" and "no candidate takes less energy" in str(found.help)


def test_the_least_energy_is_that_of_the_fewest_bytes(folder: Path, tmp_path: Path) -> None:
    result = qcc.compile(
        folder / "m.onnx", POLICY + "minimize energy\n", data=folder / "d.npz", output=tmp_path / "o.onnx"
    )
    assert {row.format for row in result.layers} == {"int4 group 32 sym scale fp16"}


def test_rounded_convolutions_write_bytes(tmp_path: Path) -> None:
    onnx.save(models.parse(CONV, _weights(), opset=21), tmp_path / "m.onnx")
    data = {"x": models.random(16, 16, 8, 8)}
    text = "qpolicy 1\nrule conv { weights = int8 channel | float; activations = static }\nminimize activations\n"
    result = qcc.compile(tmp_path / "m.onnx", text, data=[data], output=tmp_path / "o.onnx")
    (row,) = result.costs
    assert "alive at a time" in row.note
    assert row.before - row.after == 16 * 3 * MAPS * POSITIONS
    with pytest.raises(QccError, match="activations"):
        text = text.replace("minimize activations", "budget { activations <= 10% }")
        qcc.compile(tmp_path / "m.onnx", text, data=[data], output=tmp_path / "o.onnx")


def test_channels_that_go_write_nothing(folder: Path, tmp_path: Path) -> None:
    text = "qpolicy 1\nrule any { weights = int8 group 32; structure = channels(keep = 50%) }\n"
    text += "budget { activations <= 90% }"
    result = qcc.compile(folder / "m.onnx", text, data=folder / "d.npz", output=tmp_path / "o.onnx")
    (row,) = result.costs
    assert row.after == pytest.approx(0.5 * (row.before - 4 * 32) + 4 * 32, rel=0.05)  # whole groups stay


def test_a_table_of_ones_own_replaces_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "chip.json"
    path.write_text('{"memory_byte": 0.0}')
    found = energy_table(path)
    assert found.memory_byte == 0 and found.float32 == energy_table().float32
    assert "chip.json" in found.source and "memory_byte 0" in found.source


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"memory": 1}', "nothing is called"),
        ('{"int8": -1}', "picojoules"),
        ('{"int8": true}', "picojoules"),
        ('{"int8": NaN}', "picojoules"),
        ('{"source": 3}', "a text"),
        (None, "cannot be read"),
    ],
)
def test_a_table_of_ones_own_replaces_what_it_says_reject(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "chip.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ModelError, match=why) as caught:
        energy_table(path)
    assert caught.value.code == "Q660"


CHAIN = f"""g (float[N,{READ},8,8] x) => (float[N,4] y) {{
    a = Conv <pads = [1, 1, 1, 1]> (x, k1)
    b = Conv <pads = [1, 1, 1, 1]> (a, k2)
    c = Conv <pads = [1, 1, 1, 1]> (b, k3)
    m = ReduceMean <axes = [2, 3], keepdims = 0> (c)
    y = MatMul (m, w)
}}"""
CHAIN_POLICY = (
    "qpolicy 1\nrule conv {{ weights = int8 channel | float; activations = static }}\nbudget {{ peak <= {} }}\n"
)


def chain(folder: Path) -> Path:
    """Convolutions that make 8, 16 and 4 maps: most is alive between the second and what it reads."""
    made = [("k1", (8, READ)), ("k2", (16, 8)), ("k3", (4, 16))]
    weights = {name: models.random(*shape, 3, 3) / 8 for name, shape in made} | {"w": models.random(4, 4)}
    path = folder / "chain.onnx"
    onnx.save(models.parse(CHAIN, weights, opset=17), path)
    return path


@pytest.mark.parametrize("bound", ["100%", "60%", "40%", "5 kB", "2000 B"])
def test_the_peak_is_bounded(bound: str, tmp_path: Path) -> None:
    """Where each convolution may round what it makes, the largest go first; never is more alive than is allowed."""
    data = [{"x": models.random(1, READ, 8, 8, seed=at)} for at in range(16)]
    result = qcc.compile(chain(tmp_path), CHAIN_POLICY.format(bound), data=data, output=tmp_path / "o.onnx")
    (row,) = result.costs
    assert row.row == "peak" and row.before == 4 * 64 * (8 + 16)
    asked = float(bound.split("%")[0].split()[0]) * (row.before / 100 if "%" in bound else 1000 if "kB" in bound else 1)
    assert row.after <= asked
    assert json.loads((tmp_path / "o.lock").read_text())["costs"]["peak"]["after"] == row.after


def test_the_peak_is_bounded_reject(tmp_path: Path) -> None:
    data = [{"x": models.random(1, READ, 8, 8)}]
    with pytest.raises(QccError, match="peak") as caught:
        qcc.compile(chain(tmp_path), CHAIN_POLICY.format("20%"), data=data, output=tmp_path / "o.onnx")
    (found,) = caught.value.diagnostics
    assert found.code == "Q310" and found.note == (
        "the smallest feasible peak is 1,536 bytes, the budget is 1,229 bytes"
    )
    with pytest.raises(QccError, match="minimize"):
        load_text(CHAIN_POLICY.format("50%") + "minimize peak\n", schema())
