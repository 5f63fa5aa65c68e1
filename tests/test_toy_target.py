"""A target is one folder: with `toy_target` on the search path alone, policies name it and everything follows."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import qcc
import qcc.codegen
from qcc.__main__ import main
from qcc.codegen.target.find import targets
from qcc.codegen.target.target import Target
from qcc.compiler.editor import known
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.plan import catalog
from qcc.compiler.plan.plan import Kernels
from qcc.compiler.report.lock import read_lock
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.policy import options
from tests.chooser import PLAIN

TOY = Path(__file__).with_name("toy_target")
ROOT = Path(__file__).parent.parent
TOLERANCE = 1e-5  # of outputs of a few units: float32 sums of 64 products, in another order
OP, WITH_BIAS = "linear_int8_channel", "linear_int8_channel_bias"
CACHED = (targets, catalog.schema, known.known_schema, options._options_of)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Its folder lies among the others, and nothing else is told."""
    monkeypatch.setattr(qcc.codegen, "__path__", [*qcc.codegen.__path__, str(TOY)])
    monkeypatch.setattr(known, "plugins", lambda: ("toy",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for one in CACHED:
        one.cache_clear()
    yield
    for one in CACHED:
        one.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two linear layers, the second with a bias; one has a group of its own in the policies below."""
    found = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 64] x) => (float[n, 32] y) '
        "{ h = MatMul (x, first) y = Gemm (h, second, bias) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in (("first", (64, 64)), ("second", (64, 32)), ("bias", (32,))):
        values = rng.standard_normal(shape).astype(np.float32) / 8
        found.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(found, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def compiled(model: Path, rule: str, target: str = "toy(quick)") -> Result:
    return qcc.compile(model, f"qpolicy 1\ntarget {target}\n{rule}\n")


def forms(result: Result) -> dict[str, str]:
    return {row.name: row.form for row in result.layers}


@pytest.mark.slow
def test_it_builds_its_library_and_publishes_it_beside_the_model(model: Path) -> None:
    result = compiled(model, "rule any { weights = int8 channel }")
    assert forms(result) == {"first": "kernel", "second": "kernel"}
    assert {row.reason for row in result.layers} == {
        "a kernel was measured at 0.35x the time of float on quick, this form at 1.00x"
    }
    assert result.kernels == kernels_beside(result.output) and result.kernels.is_file()
    assert result.plan.kernels == Kernels("toy", ("quick",), "bf16")
    assert result.verification.kernel_outputs
    session = qcc.Session(result.output)
    assert [(one.op, one.by_kernel) for one in session.nodes] == [(OP, True), (WITH_BIAS, True)]
    x = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    plain = qcc.Session(result.output, kernels=False)
    assert not any(one.by_kernel for one in plain.nodes)
    np.testing.assert_allclose(session.run({"x": x})["y"], plain.run({"x": x})["y"], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_it_says_what_makes_its_kernels(model: Path) -> None:
    """The language learns the word; that of another target asks for what this one does not make."""
    rule = "rule any { weights = int8 channel }\nexport { kernels = %s }"
    assert forms(compiled(model, rule % "none")) == {"first": "decoded", "second": "decoded"}
    assert set(forms(compiled(model, rule % "cc")).values()) == {"kernel"}
    with pytest.raises(QccError, match="`tvm` makes no kernels for `toy`") as refused:
        compiled(model, rule % "tvm")
    assert refused.value.diagnostics[0].code == "Q501"
    with pytest.raises(QccError, match="takes `tvm`, `cc` or `none`, not `llvm`"):
        compiled(model, rule % "llvm")


@pytest.mark.slow
def test_its_capability_data_chooses(model: Path) -> None:
    """Kernels that were measured to be slow are not taken, nor are forms of the runtime that were not measured."""
    slow = compiled(model, "rule any { weights = int8 channel }", "toy(slow)")
    assert forms(slow) == {"first": "decoded", "second": "decoded"} and slow.kernels is None
    assert "a kernel was measured at 3.46x the time of float on slow" in slow.layers[0].reason
    grouped = "rule any { weights = int4 group 32 }"
    assert forms(compiled(model, grouped, "toy(slow)")) == {"first": "fused", "second": "fused"}
    assert forms(compiled(model, grouped)) == {"first": "decoded", "second": "decoded"}


@pytest.mark.slow
def test_what_no_template_takes_gets_no_kernel(model: Path) -> None:
    result = compiled(model, 'rule any { weights = int8 channel }\nrule any[name ~ "first"] { weights = int4 channel }')
    assert forms(result) == {"first": "decoded", "second": "kernel"}
    assert "these processors have no kernel for int4 channel" in result.layers[0].reason
    assert result.ops == (WITH_BIAS,)
    rounded = compiled(model, "rule any { weights = int8 channel; activations = static }")
    assert set(forms(rounded).values()) == {"integers"}


@pytest.mark.slow
def test_the_same_bytes_and_from_the_lock(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        result = compiled(model, "rule any { weights = int8 channel }")
        assert result.kernels is not None
        made.append((result.output.read_bytes(), result.kernels.read_bytes()))
    assert made[0] == made[1]
    lock = read_lock(result.lock)
    assert "apache-tvm" not in lock.versions  # which made nothing here
    again = qcc.compile(model, plan=lock)
    assert again.kernels is not None and (again.output.read_bytes(), again.kernels.read_bytes()) == made[0]


@pytest.mark.slow
def test_its_providers_run_what_is_compiled(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    session = onnxruntime.InferenceSession

    def opened(*given: Any, providers: list[str]) -> onnxruntime.InferenceSession:
        asked.append(providers)
        return session(*given, providers=["CPUExecutionProvider"])

    here = ["Toy", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: here)
    monkeypatch.setattr(type(targets()["toy"]), "providers", tuple(here))  # its library's own is the CPU's
    result = compiled(model, "rule any { weights = int8 channel }")
    assert result.kernels is not None and result.times is not None
    assert ["Toy", "CPUExecutionProvider"] in asked and [
        "CPUExecutionProvider"
    ] in asked  # the original is verified against as it always is
    here.remove("Toy")
    asked.clear()
    result = compiled(model, "rule any { weights = int8 channel }")
    assert result.kernels is not None and result.times is None and not result.verification.kernel_outputs
    assert all(one == ["CPUExecutionProvider"] for one in asked)


@pytest.mark.slow
def test_commands_know_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    listed = r"^toy +CPUExecutionProvider +Kernels in plain C, which show what a target is$"
    assert re.search(listed, capsys.readouterr().out, re.MULTILINE)
    assert main(["targets", "--format", "json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["targets"]}
    assert list(found) == ["onnxruntime", "cpu", "cuda", "qdq", "toy"]
    assert [one["name"] for one in found["toy"]["processors"]] == ["slow", "quick"]
    assert found["toy"]["native"] == "quick"
    policy = model.with_name("p.qpolicy")
    policy.write_text("qpolicy 1\ntarget toy(quik)\nrule any { weights = int8 }\n", encoding="utf-8")
    assert main(["check", str(policy)]) == 1
    assert "did you mean `quick`?" in capsys.readouterr().err
    policy.write_text("qpolicy 1\ntarget toy(quick)\nrule any { weights = int8 channel }\n", encoding="utf-8")
    assert main(["compile", str(model), "-p", str(policy), "-q"]) == 0
    assert kernels_beside(model.with_name("net.qcc.onnx")).is_file()
    assert main(["compile", str(model), "-p", str(policy), "--emit", "tir"]) == 2
    assert "kernels for `toy` are not shown as `tir`" in capsys.readouterr().err


@pytest.mark.slow
def test_a_plan_for_a_target_that_is_not_there_is_refused(model: Path) -> None:
    lock = compiled(model, "rule any { weights = int8 channel }").lock
    with pytest.raises(ValueError, match=r"no kernels for `gone\(quick\)`"):
        Kernels("gone", ("quick",), "bf16")
    with pytest.raises(ValueError, match="unknown target `brisk`"):
        Kernels("toy", ("brisk",), "bf16")
    command = f"import qcc.compiler.report.lock as l, pathlib; l.read_lock(pathlib.Path({str(lock)!r}))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "there are no kernels for `toy(quick)`" in done.stderr


def test_a_library_holds_its_sources_in_its_key(tmp_path: Path) -> None:
    """What a target shares with others, and what it has of its own."""
    toy = targets()["toy"]
    assert len({toy.digest(), targets()["cpu"].digest()}) == 2
    assert targets()["cpu"].digest() == PLAIN.digest()  # they lie in one folder


def test_no_file_of_the_project_names_it() -> None:
    named = [
        path
        for room in ("dsl", "ir", "passes", "codegen", "compiler", "qcc")
        for path in (ROOT / room).rglob("*.py")
        if "toy" in path.read_text(encoding="utf-8")
    ]
    assert named == []
    assert isinstance(targets()["toy"], Target)
