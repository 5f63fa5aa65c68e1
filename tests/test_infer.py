"""Types of values are inferred, through functions too, without following the numbers of weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.infer import infer

FUNCTIONS = """<ir_version: 10, opset_import: ["": 21, "local": 1]>
net (float[batch, 64] x) => (float[batch, heads, rest] y) {
    scale = Constant <value = float {0.5}> ()
    w = local.decode (codes, scale)
    m = MatMul (x, w)
    shape = Constant <value = int64[3] {0, 32, -1}> ()
    y = Reshape (m, shape)
}
<domain: "local", opset_import: ["": 21]>
decode (codes, scale) => (w) {
    flat = Reshape (codes, size)
    w = DequantizeLinear (flat, scale)
}
"""
SIZE = "size = Constant <value = int64[2] {{64, {wide}}}> ()\n"


def written(folder: Path, wide: int) -> Path:
    """A model whose weight comes out of a function."""
    text = FUNCTIONS.replace("    flat =", "    " + SIZE.format(wide=wide) + "    flat =")
    model = onnx.parser.parse_model(text)
    codes = np.random.default_rng(0).integers(-9, 9, (1, 64, wide, 1)).astype(np.int8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(codes, "codes"))
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_shapes_go_through_functions_and_follow_numbers_behind_them(tmp_path: Path) -> None:
    found = infer(OnnxGraph.load(written(tmp_path, 96)).model)
    shapes = {value.name: value.shape for node in found.graph for value in node.outputs}
    assert shapes["w"] is not None and shapes["w"].numpy() == (64, 96)
    assert shapes["y"] is not None and shapes["y"][1:] == (32, 3)
    assert len(found.functions) == 1


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
