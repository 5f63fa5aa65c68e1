"""`qcc compile --emit tir` and `asm`: the code of the kernels that would be built."""

import importlib.metadata
import json
from pathlib import Path

import onnx
import pytest

from qcc.__main__ import main
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.ir.kernel.op import parse as parse_op
from tests.chooser import CPU
from tests.onnx_models import parse, random

pytest.importorskip("tvm")

BODY = "one (float[batch, 3, 64] x) => (float[batch, 3, 96] y) { h = MatMul (x, w) y = Relu (h) }"
TARGET = "target cpu(avx2, generic)\n"
OPS = [parse_op("linear_int4_group32_relu")]
HEADINGS = [
    "# target avx2: haswell, int8 by AVX2",
    *("# t0_four_int4_group32", "# t0_one_int4_group32", "# t0_quantize", "# t0_steps_relu"),
    "# target generic: x86-64, exact",
    *("# t1_four_int4_group32", "# t1_one_int4_group32", "# t1_steps_relu"),
]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(parse(BODY, {"w": random(64, 96)}, opset=21, ir_version=10), "one.onnx")
    monkeypatch.setattr(type(CPU), "runs_here", lambda *_: False)  # so nothing is timed
    return tmp_path / "one.onnx"


def told(capsys: pytest.CaptureFixture[str], text: str, *words: str) -> tuple[int, str, str]:
    Path("p.qpolicy").write_text(f"qpolicy 1\n{text}", encoding="utf-8")
    status = main(["compile", "one.onnx", "-p", "p.qpolicy", *words])
    return status, *capsys.readouterr()


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "sign"), [("tir", "T.Broadcast"), ("asm", "ymm0")])
def test_all_that_a_library_has(model: Path, capsys: pytest.CaptureFixture[str], stage: str, sign: str) -> None:
    policy = TARGET + "rule linear { weights = int4 group 32 }\n"
    status, out, err = told(capsys, policy, "--emit", stage)
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("# ")] == HEADINGS
    assert sign in out
    assert {path.name for path in model.parent.iterdir()} == {"one.onnx", "p.qpolicy"}
    status, text, _ = told(capsys, policy, "--emit", stage, "--format", "json")
    assert json.loads(text) == {stage: out, "diagnostics": []}


@pytest.mark.slow
def test_assembly_is_code_alone() -> None:
    from qcc.codegen.cpu.library.show import assembly

    for target in ("avx512-vnni", "armv8.2-dotprod"):
        text = assembly(OPS, [PROCESSORS[target]], "int8")
        assert text == assembly(OPS, [PROCESSORS[target]], "int8")
        lines = [line for line in text.splitlines() if line and not line.startswith("# ")]
        assert all(line.startswith("    ") or line.endswith(":") for line in lines)
        assert not [line for line in lines if line.strip().startswith((".loc", ".cfi", ".Ltmp"))]
        assert "t0_steps_relu_compute_:" in lines
    assert "fmla" in text


def test_no_kernels_reject(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = told(capsys, "rule linear { weights = int4 group 32 }\n", "--emit", "tir")
    assert (status, out) == (2, "")
    assert "`p.qpolicy` asks for no kernels" in err
    status, out, err = told(capsys, TARGET + "rule linear { weights = int4 group 20 }\n", "--emit", "tir")
    assert (status, out) == (0, "")
    assert "warning[Q503]: no layer takes a kernel" in err


def test_without_tvm_reject(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    monkeypatch.setattr("qcc.compiler.report.lock.version", lambda _: "0")
    status, out, err = told(capsys, TARGET + "rule linear { weights = int4 group 32 }\n", "--emit", "asm")
    assert (status, out) == (1, "")
    assert "error[Q502]: the kernels cannot be built: TVM is missing" in err
