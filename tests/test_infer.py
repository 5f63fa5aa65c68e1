"""Types of values are inferred, through functions too, without following the numbers of weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

import qcc
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.infer import infer

NET = """<ir_version: 10, opset_import: ["": 21]>
net (float[batch, 64] x) => (float[batch, heads, rest] y) {{
    m = MatMul (x, w)
    shape = Constant <value = int64[3] {{0, 32, -1}}> ()
    y = Reshape (m, shape)
}}"""
WEIGHTS = "qpolicy 1\nrule linear { weights = int8 channel }\n"


def written(folder: Path, wide: int) -> Path:
    """A model whose weight comes out of a function."""
    model = onnx.parser.parse_model(NET.format())
    weight = np.random.default_rng(0).standard_normal((64, wide)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, folder / "net.onnx")
    qcc.compile(folder / "net.onnx", WEIGHTS, output=folder / "out.onnx")
    return folder / "out.onnx"


def test_shapes_go_through_functions_and_follow_numbers_behind_them(tmp_path: Path) -> None:
    model = OnnxGraph.load(written(tmp_path, 96)).model
    found = infer(model)
    known = {value.name: value.shape for node in found.graph for value in node.outputs}
    shapes = {name: shape for name, shape in known.items() if shape is not None}
    assert shapes.keys() == known.keys()
    assert shapes["y"][1:] == (32, 3)
    assert len(found.functions) == len(model.functions) == 1


@pytest.mark.slow
def test_numbers_of_weights_are_not_followed(tmp_path: Path) -> None:
    """It took 270 bytes for each."""
    path = written(tmp_path, 1 << 15)
    code = (
        "import resource, sys; from pathlib import Path; from qcc.ir.onnx.adapter import OnnxGraph;"
        "from qcc.ir.onnx.file.infer import infer; model = OnnxGraph.load(Path(sys.argv[1])).model;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; infer(model);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) << 10 < 100 << 20
