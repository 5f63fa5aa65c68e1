"""Every byte of a model is told as reached, or with the reason why not."""

from pathlib import Path

import numpy as np
import onnx

import qcc
from qcc.compiler.files.open_model import open_model
from qcc.compiler.report.json import as_json
from qcc.compiler.report.reach import KEPT, LEFT, NOTES, Reach, reach
from tests.onnx_models import parse, random

BODY = """g (float[N,64] x, int64[1] k, bool c) => (float[N,32] y, float[N,16] z) {
    a = MatMul (x, w)
    b = Add (a, bias)
    s = Mul (b, table)
    z = If (c) <
        then_branch = t () => (d) { p = MatMul (x, inner) d = Add (p, offset) },
        else_branch = e () => (f) { f = MatMul (x, inner) } >
    q = DequantizeLinear (codes, step)
    y = Add (s, q)
}"""
WEIGHTS = {
    "w": random(64, 32),
    "bias": random(32),
    "table": random(32, seed=1),
    "inner": random(64, 16),
    "offset": random(16),
    "codes": np.ones((1, 32), np.int8),
    "step": np.array(0.5, np.float32),
}


def _model(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(parse(BODY.replace(", int64[1] k", ""), WEIGHTS), path)
    return path


def test_every_byte_has_its_reason(tmp_path: Path) -> None:
    path = _model(tmp_path)
    model = open_model(path)
    found = reach(model.graph, path.stat().st_size)
    rest = dict(found.rest)
    assert found.reached_bytes == WEIGHTS["w"].nbytes + WEIGHTS["inner"].nbytes
    assert rest["biases and norms"] == WEIGHTS["bias"].nbytes
    assert rest["in bodies of If"] == WEIGHTS["offset"].nbytes
    assert rest["codes read by DequantizeLinear"] == WEIGHTS["codes"].nbytes
    assert rest["read by mul"] == WEIGHTS["table"].nbytes
    assert found.reached_bytes + sum(rest.values()) == found.total_bytes == path.stat().st_size
    assert LEFT in rest


def test_notes_are_told_apart_from_the_graph(tmp_path: Path) -> None:
    path = _model(tmp_path)
    bare = qcc.compile(path, "lossless").reach
    proto = onnx.load(path)
    branch = next(one.g for node in proto.graph.node for one in node.attribute if one.name == "then_branch")
    for node in (proto.graph.node[0], branch.node[0]):
        node.metadata_props.add(key="stack_trace", value="file " * 1000)
    branch.node[0].doc_string = "doc " * 1000
    onnx.save(proto, path)
    found = qcc.compile(path, "lossless").reach
    assert bare is not None and found is not None
    assert NOTES not in dict(bare.rest)
    assert 14_000 <= dict(found.rest)[NOTES] <= 14_100
    assert abs(dict(found.rest)[LEFT] - dict(bare.rest)[LEFT]) <= 100  # lengths of lengths


def test_weights_that_a_policy_keeps_are_not_reached(tmp_path: Path) -> None:
    policy = tmp_path / "some.qpolicy"
    policy.write_text("qpolicy 1\nrule linear[out == 16] { weights = int8 channel }\n", "utf-8")
    result = qcc.compile(_model(tmp_path), policy)
    assert result.reach is not None
    assert result.reach.reached_bytes == WEIGHTS["inner"].nbytes
    assert dict(result.reach.rest)[KEPT] == WEIGHTS["w"].nbytes
    assert as_json(result)["reach"]["reached_bytes"] == WEIGHTS["inner"].nbytes


def test_it_fits_eighty_columns() -> None:
    rest = tuple((f"read by some_long_function_{number}", 10_000_000 - number) for number in range(9))
    lines = Reach(10**9, 10**8, rest).lines
    assert max(map(len, lines)) <= 70
    assert lines[-1].endswith("others")
