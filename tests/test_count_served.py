"""Libraries from the cache that are not what they should be: never loaded, or counted and built anew."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qcc
from qcc.codegen.cpu.processors.processors import native
from qcc.codegen.target import cache
from qcc.codegen.target.target import Library, Processor
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.runtime import count_served
from tests.chooser import CPU
from tests.codegen_models import linear

POLICY = "qpolicy 1\ntarget cpu\nrule any { weights = int4 group 32 }\n"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose layer gets a kernel, whatever is timed, compiled once."""
    pytest.importorskip("tvm")
    monkeypatch.setattr("qcc.compiler.measure.choose_form.FormChooser.__call__", _kernel)
    draw = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 128] x) => (float[n, 64] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((128, 64)).astype(np.float32)
    draw.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(draw, tmp_path / "net.onnx")
    (tmp_path / "p.qpolicy").write_text(POLICY, encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "net.onnx"


class Here(Processor):
    """One that this machine is."""

    @property
    def obstacle(self) -> str:
        return ""


def _kernel(*_: object) -> object:
    from qcc.ir.forms.choose import Choice
    from qcc.ir.forms.kernel import KERNEL

    return Choice(KERNEL, "a test says so")


def compiled(model: Path) -> bytes:
    result = qcc.compile(model, model.with_name("p.qpolicy"))
    session = qcc.Session(result.output, kernels=True)
    assert [node.by_kernel for node in session.nodes] == [True]
    return kernels_beside(result.output).read_bytes()


@pytest.mark.slow
def test_planted_and_damaged_libraries_are_replaced(model: Path) -> None:
    if not CPU.runs_here([native().name]):
        pytest.skip("kernels do not run here")
    if compiled_without_library(model):
        pytest.skip("a library does not pay for so small a model")
    good = compiled(model)
    (path,) = model.parent.glob("cache/qcc/*.so")
    for content in (
        b"",
        b"garbage",
        good[: len(good) // 2],
        bytes([good[5000] ^ 255]).join((good[:5000], good[5001:])),
    ):
        path.write_bytes(content)
        assert compiled(model) == good
    if (
        other := Path("/lib/x86_64-linux-gnu/libm.so.6")
    ).exists():  # a whole library with a right hash that serves nothing
        key = path.name.partition(".")[0]
        cache.forget(key, ".so")
        cache.keep(key, ".so", other)
        assert compiled(model) == good


def compiled_without_library(model: Path) -> bool:
    return qcc.compile(model, model.with_name("p.qpolicy")).kernels is None


def test_what_serves_nothing_even_fresh_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qcc.compiler.plan.plan import Kernels

    built: list[bool] = []

    def build(*_: object, fresh: bool = False) -> Library:
        built.append(fresh)
        return Library(tmp_path / "k.so", ((Here("any"), frozenset({linear(4, 32)})),))

    monkeypatch.setattr(count_served, "build_library", build)
    monkeypatch.setattr(count_served, "loadable", str)
    monkeypatch.setattr(count_served, "serves", lambda *_: set())
    with pytest.raises(qcc.QccError, match="serves no `linear_int4_group32`") as caught:
        count_served.build_counted({linear(4, 32)}, Kernels("cpu", ("generic",), "exact"), tmp_path / "k.so")
    assert [one.code for one in caught.value.diagnostics] == ["Q451"]
    assert built == [False, True]
