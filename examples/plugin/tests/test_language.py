"""What the package defines is in the language, with its manual pages, and compiles."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qcc
from qcc.compiler.metrics.find import metrics
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.report import QccError

POLICY = """qpolicy 1
target edge
rule linear { weights = int4 group 32; rounding = stochastic(seed = 1) }
rule any[params < 1000] { weights = fives group 16; rounding = nearest }
verify { mean_error <= 60% }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two linear layers."""
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[n, 64] x) => (float[n, 8] y)'
    found = onnx.parser.parse_model(text + " { h = MatMul (x, first) y = MatMul (h, second) }")
    rng = np.random.default_rng(0)
    for name, shape in (("first", (64, 64)), ("second", (64, 8))):
        found.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    onnx.save(found, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_the_language_knows_them() -> None:
    found = schema()
    assert "stochastic" in found.properties["rounding"].methods and "fives" in found.formats
    assert "edge" in found.targets and "mean_error" in found.verify and "mean_error" in metrics()


def test_a_policy_compiles(model: Path) -> None:
    result = qcc.compile(model, POLICY)
    assert result.passed, result.verification
    assert [layer.format for layer in result.layers] == ["int4 group 32 sym scale fp16", "fives group 16 scale fp16"]
    assert '"qcc-example": "0.1.0"' in result.lock.read_text()


def test_options_are_checked(model: Path) -> None:
    with pytest.raises(QccError) as error:
        qcc.compile(model, POLICY.replace("seed = 1", "sead = 1"))
    assert error.value.diagnostics[0].code == "Q202" and "`seed`" in (error.value.diagnostics[0].help or "")
