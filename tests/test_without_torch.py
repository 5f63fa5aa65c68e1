"""Where PyTorch is not installed all but its own models works, and those say what to install."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

CHILD = """
import importlib.machinery as machinery, sys
real, absent = machinery.PathFinder.find_spec, ("torch", "transformers", "onnxscript", "torchvision")

def find_spec(name, *rest):
    return None if name.partition(".")[0] in absent else real(name, *rest)

machinery.PathFinder.find_spec = staticmethod(find_spec)
from qcc.__main__ import main
for words in sys.argv[1].split("; "):
    print(f"STATUS {main(words.split())} {words}", flush=True)
assert not [name for name in sys.modules if name.partition(".")[0] in absent]
"""
MODEL = """<ir_version: 8, opset_import: ["": 17]>
net (float[n, 32] x) => (float[n, 16] y) { h = MatMul(x, up) r = Relu(h) y = MatMul(r, down) }"""
POLICY = """qpolicy 1
rule linear { weights = int{4,8} group 16; rounding = gptq; fold_branches = on; equalize = on; permute = magnitude }
budget { size <= 60% }
verify { cosine >= 0.9 }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, a policy, a program that nobody can read and a folder of transformers."""
    model = onnx.parser.parse_model(MODEL)
    draw = np.random.default_rng(0)
    for name, shape in (("up", (32, 48)), ("down", (48, 16))):
        model.graph.initializer.append(numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name))
    onnx.save(model, tmp_path / "net.onnx")
    (tmp_path / "a.qpolicy").write_text(POLICY)
    (tmp_path / "net.pt2").write_bytes(b"PK")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.slow
def test_all_else_works_and_programs_say_what_to_install(folder: Path) -> None:
    working = (
        "compile net.onnx -p a.qpolicy", "inspect net.onnx", "inspect net.onnx --axes", "explain net.onnx -p a.qpolicy",
        "analyze net.onnx", "pack family net.onnx net.qcc.onnx", "check a.qpolicy", "passes gptq",
    )  # fmt: skip
    refused = (
        "compile net.pt2 -p a.qpolicy",
        "inspect net.pt2",
        "compile bert -p a.qpolicy",
        "explain net.pt2 -p a.qpolicy",
    )
    words = [sys.executable, "-c", CHILD, "; ".join((*working, *refused))]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for line in working:
        assert f"STATUS 0 {line}" in done.stdout, done.stderr
    for line in refused:
        assert f"STATUS 1 {line}" in done.stdout, done.stderr
    assert done.stderr.count("Q642") == len(refused) and done.stderr.count("qcc[torch]") == len(refused)
    assert not [path for path in folder.iterdir() if path.suffix == ".pt2" and path.name != "net.pt2"]
