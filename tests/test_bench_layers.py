"""`qcc bench --layers`: what nodes must do, what they are held to, and what is printed."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import parser

from qcc.__main__ import main
from qcc.codegen.cpu.ceilings import ceilings
from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.cpu.templates import FEW, MANY
from qcc.codegen.target.ceiling import Ceiling, Ceilings
from qcc.codegen.target.machine import Machine
from qcc.compiler.bench.layers.console import layer_table
from qcc.compiler.bench.layers.layers import LayerTimes
from qcc.compiler.console.fit_table import fitted
from qcc.compiler.runtime.profile import Node, Tensor, launch_s, profiled
from qcc.compiler.runtime.roofline import NodeTime, Surroundings, terms, work_of
from tests.kernel_files import OP, library, model, needs_tvm

RATES = {
    **{"fp32 multiply-add": 100.0, "int8 AVX2": 200.0, "rounding to int8": 1.0},
    **{"reading L1": 100.0, "reading L2": 50.0, "reading L3": 20.0, "reading memory": 10.0},
}
KNOWN = Ceilings("2026-11-29", tuple(Ceiling(name, rate, "GB/s", rate) for name, rate in RATES.items()))
HERE = Machine("a processor", 2, 1 << 15, 1 << 19, 1 << 25)
CHAIN = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 64] x) => (float[M, 64] y) { h = MatMul(x, w) r = Relu(h) t = Transpose<perm = [1, 0]>(r)
    u = Transpose<perm = [1, 0]>(t) y = MatMul(u, w) }"""


def floats(*shape: int, constant: bool = False) -> Tensor:
    size = 4.0
    for extent in shape:
        size *= extent
    return Tensor(shape, size, constant)


def node(op: str, inputs: tuple[Tensor, ...], output: Tensor, ours: bool = False, **attributes: int) -> Node:
    return Node("n", op, ours, 1e-3, inputs, (output,), attributes)


def place(threads: int = 1, weights: float = 1 << 30) -> Surroundings:
    return Surroundings(HERE, KNOWN, threads, 1e-6, weights)


def chain(path: Path) -> Path:
    made = parser.parse_model(CHAIN)
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [64, 64], [0.5] * 64 * 64)
    made.graph.initializer.append(weight)
    onnx.save(made, path)
    return path


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's ceilings, so that none are measured."""
    monkeypatch.setattr(ceilings, "known", lambda: KNOWN)


@pytest.mark.parametrize(
    ("made", "operations"),
    [
        (node("MatMul", (floats(2, 8, 16), floats(16, 4, constant=True)), floats(2, 8, 4)), 2 * 2 * 8 * 4 * 16),
        (node("Gemm", (floats(16, 8), floats(16, 4, constant=True)), floats(8, 4), transA=1), 2 * 8 * 4 * 16),
        (node("Conv", (floats(1, 6, 5, 5), floats(4, 3, 3, 3, constant=True)), floats(1, 4, 5, 5)), 2 * 100 * 27),
        (node("Attention", (floats(1, 8, 4), floats(4, 12, constant=True)), floats(1, 8, 4)), 2 * 8 * 48 + 4 * 32 * 8),
        (node("Relu", (floats(8, 4),), floats(8, 4)), 32),
        (node("Transpose", (floats(8, 4),), floats(4, 8)), 0),
        (node("Relu", (), floats(8, 4)), 32),
    ],
    ids=lambda one: one.op if isinstance(one, Node) else "",
)
def test_what_is_computed(made: Node, operations: float) -> None:
    assert sum(one.operations for one in work_of(made)) == operations


def test_integers_are_held_to_integers() -> None:
    made = node("MatMulInteger", (floats(8, 1024), floats(1024, 1024, constant=True)), floats(8, 1024))
    assert terms(made, place())["arithmetic"] == pytest.approx(2 * 8 * 1024 * 1024 / 200e9)


def test_a_kernel_of_ours_is_held_to_its_template() -> None:
    weight = Tensor((768, 384), 768 * 384, constant=True)
    made = node(OP, (floats(1, 768), weight), floats(1, 768), True)
    (work,) = work_of(made)
    assert work.operations == 2 * 768 * 768
    names = {template.name: template.ceiling for template in (*FEW, *MANY)}
    assert work.ceiling in names.values()
    assert work.rounded in (0, 768)
    if native().name == "avx2":
        assert (work.ceiling, work.rounded) == ("int8 AVX2", 768)


def test_products_behind_each_other_are_held_to_both() -> None:
    weight, back = Tensor((1536, 384), 1536 * 384, constant=True), Tensor((768, 1536), 768 * 1536, constant=True)
    made = node(f"{OP}_then_{OP}_add", (floats(2, 384), floats(2, 768), weight, back), floats(2, 768), True)
    assert [work.operations for work in work_of(made)] == [2 * 2 * 1536 * 384, 2 * 2 * 1536 * 768]
    gated = node(f"{OP}_and_mul_then_{OP}", (floats(2, 384), weight, weight, back), floats(2, 768), True)
    assert work_of(gated)[0].operations == 2 * work_of(made)[0].operations


def test_an_op_that_is_no_kernel_computes_nothing_that_is_known() -> None:
    (work,) = work_of(node("linear_of_no_kind", (floats(1, 8),), floats(1, 8), True))
    assert work.operations == 0


def test_weights_come_from_the_cache_that_holds_all_of_them() -> None:
    made = node("MatMul", (floats(1, 1024), floats(1024, 1024, constant=True)), floats(1, 1024))
    values = 2 * 4096 / 100e9  # of the first cache
    for weights, rate in ((1 << 30, 10e9), (1 << 24, 20e9), (1 << 18, 50e9), (1 << 10, 100e9)):
        assert terms(made, place(weights=weights))["bytes"] == pytest.approx((4 << 20) / rate + values)
    assert terms(made, place(threads=2))["bytes"] == pytest.approx(((4 << 20) / 10e9 + values) / 2)


def test_a_table_is_not_read_whole() -> None:
    made = node("Gather", (Tensor((2,), 16), floats(50000, 64, constant=True)), floats(2, 64))
    found = terms(made, place())
    assert "bytes" not in found
    assert found["reorder"] < 1e-6


def test_launching_holds_what_is_small() -> None:
    found = terms(node("Relu", (floats(4),), floats(4)), place())
    assert max(found, key=lambda term: found[term]) == "launch"


def test_what_launching_takes_is_measured() -> None:
    assert 0 < launch_s(1) < 1e-2  # seconds, of one node


def test_nodes_of_a_model(tmp_path: Path) -> None:
    x = onnx.numpy_helper.to_array(onnx.helper.make_tensor("x", 1, [4, 64], [1.0] * 256))
    found = profiled(chain(tmp_path / "chain.onnx"), None, 1, {"x": x}, 3)
    products = [one for one in found if one.op == "MatMul"]
    assert len(products) == 2
    for one in products:
        assert [work.operations for work in work_of(one)] == [2 * 4 * 64 * 64]
        assert [given.shape for given in one.inputs if given.constant] == [(64, 64)]
        assert [given.shape for given in one.inputs if not given.constant] == [(4, 64)]


def told(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    assert main(["bench", *words]) == status
    out, err = capsys.readouterr()
    return err if status else out


def test_a_table_fits_80_columns() -> None:
    name = "model.encoder.layer.{}.attention.output.dense/" + OP
    products = (Tensor((768, 384), 768 * 384, constant=True),)
    nodes = [
        replace(node(OP, (floats(1, 768), *products), floats(1, 768), True), name=name.format(at)) for at in range(6)
    ]
    nodes += [replace(node("Slice", (floats(8),), floats(8)), name=f"node_Slice_{at * at}") for at in range(20)]
    made = [NodeTime(one, 1e-4, "arithmetic" if one.ours else "reorder") for one in nodes]
    titles, *lines = fitted(layer_table(LayerTimes(Path("m.onnx"), None, 1, 1, tuple(made))), 80)
    assert max(map(len, (titles, *lines))) <= 80
    first, second, last = lines
    assert first.split() == ["node_Slice_{0,...,361}", "20.0", "76.9%", "2.00", "10.0x", "reorder"]
    assert second.split()[0].startswith("...")
    assert second.split()[0].endswith(".attention.output.dense")
    assert last.split() == ["all", "26.0", "100.0%", "2.60", "10.0x"]


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = told(capsys, str(chain(tmp_path / "chain.onnx")), "--layers", "--threads", "1", "--rounds", "3")
    assert "chain.onnx, batch 1, 1 thread: " in out
    table = out.split("\n\n")[1].splitlines()
    assert table[1].split()[:2] == ["node", "op"]
    assert table[-1].startswith("all ")


def test_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(chain(tmp_path / "chain.onnx"))
    words = (path, "--layers", "--threads", "1", "--batch", "4", "--rounds", "3", "--format", "json")
    found = json.loads(told(capsys, *words))
    (one,) = found["models"]
    assert (one["model"], one["kernels"], one["threads"], one["batch"]) == (path, None, 1, 4)
    assert one["ms"] == pytest.approx(sum(layer["ms"] for layer in one["nodes"]))
    assert {layer["held_by"] for layer in one["nodes"]} <= {"bytes", "arithmetic", "packing", "reorder", "launch"}
    assert all(layer["floor_ms"] > 0 for layer in one["nodes"])
    assert found["ceilings"]["measured"] == KNOWN.measured


@needs_tvm
@pytest.mark.slow
def test_kernels_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = model(tmp_path / "kernel.onnx", OP)
    library(tmp_path / "kernel.kernels.so", OP)
    found = json.loads(told(capsys, str(path), "--layers", "--threads", "1", "--rounds", "3", "--format", "json"))
    (one,) = found["models"]
    assert [layer["op"] for layer in one["nodes"]] == [OP]
    assert one["kernels"] is not None


def test_a_model_that_does_not_run_reject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 8] x) => (float[M, 8] y) <int64[1] at = {5}> { y = Gather(x, at) }"""
    onnx.save(parser.parse_model(text), tmp_path / "broken.onnx")
    err = told(capsys, str(tmp_path / "broken.onnx"), "--layers", "--threads", "1", status=1)
    assert "error[Q580]: the nodes of `" in err
    assert "broken.onnx` cannot be timed: " in err


def test_what_does_not_go_with_it_reject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(chain(tmp_path / "chain.onnx"))
    for words in (("--plain",), ("--memory",), ("--picture", str(tmp_path / "x.svg"))):
        assert f"so `{words[0]}` has nothing to show" in told(capsys, path, "--layers", *words, status=2)
    assert "Q400" in told(capsys, str(tmp_path / "none.onnx"), "--layers", status=1)
