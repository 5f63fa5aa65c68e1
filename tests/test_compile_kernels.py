"""The driver for `cpu` targets: forms chosen by what was timed, a library beside the model, latency as a bound."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import qcc
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.compiler.calibrate.rows import rows_of
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.compile import decide_plan
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.choose_form import FormChooser, chooser_of, yields
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings
from qcc.compiler.measure.timing import Turns
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Kernels
from qcc.compiler.report.lock import plan_of
from qcc.compiler.runtime.build_kernels import kernels_of
from qcc.compiler.runtime.session import Session
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import Policy
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import Block
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.forms.decoded import DECODED
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.kernel import KERNEL
from qcc.ir.graph.form import Form
from tests.amx import with_tiles
from tests.chooser import CPU, PLAIN
from tests.onnx_models import parse, random

pytest.importorskip("tvm")

BODY = """
two (float[batch, 3, 64] x) => (float[batch, 3, 32] y)
{
    h = MatMul (x, w1)
    r = Relu (h)
    y = MatMul (r, w2)
}
"""
GROUP32 = Blocked(IntGrid(4), Block(1, 32))
INT8 = Blocked(IntGrid(8), Block(1, 0))
Times = dict[Form | str, float]
FAST: Times = {FLOAT: 1e-3, FUSED: 5e-4, DECODED: 1e-3, KERNEL: 2e-4}
RULE = "rule linear { weights = int4 group 32 }\n"


def policy(text: str) -> Policy:
    return load_text("qpolicy 1\n" + text, schema())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "two.onnx"
    onnx.save(parse(BODY, {"w1": random(64, 96), "w2": random(96, 32, seed=1)}, opset=21, ir_version=10), path)
    return path


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Times:
    """What every layer takes; tests change it."""
    times = dict(FAST)

    def seconds(
        self: Timings, case: Case, encoding: Blocked | None, forms: tuple[Form, ...], how: object = None
    ) -> Times:
        return {FLOAT: times[FLOAT]} | {form: times[form] for form in forms}

    monkeypatch.setattr(Timings, "seconds", seconds)
    return times


@pytest.mark.slow
def test_kernels_go_beside_the_model(model: Path, timed: Times) -> None:
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    assert result.kernels == model.with_name("two.qcc.kernels.so") and result.kernels.is_file()
    assert {row.form for row in result.layers} == {"kernel"}
    reason = "0.20x the time of float; timed on 3 rows: fused 0.50x, decoded 1.00x, kernel 0.20x"
    assert {row.reason for row in result.layers} == {reason}
    assert result.verification.kernel_outputs and result.times is not None and result.times.kernels_s is not None
    held = json.loads(result.lock.read_text(encoding="utf-8"))["kernels"]
    assert held["ops"] == sorted({node.op_type for node in onnx.load(result.output).graph.node if node.domain == "qcc"})
    x = np.random.default_rng(2).standard_normal((2, 3, 64)).astype(np.float32)
    plain, fast = (Session(result.output, one).run({"x": x})["y"] for one in (False, result.kernels))
    assert 0 < np.abs(plain - fast).max() < 0.02 * np.abs(plain).max()  # activations rounded to 8 bits


@pytest.mark.slow
def test_a_lock_repeats_the_files_without_timing(model: Path, timed: Times) -> None:
    first = qcc.compile(model, policy("target cpu\n" + RULE))
    assert first.kernels is not None
    before = first.output.read_bytes(), first.kernels.read_bytes()
    plan = plan_of(first.lock)
    timed[KERNEL] = 1.0  # slow today
    again = qcc.compile(model, policy("target cpu\n" + RULE), plan=plan)
    assert again.kernels is not None
    assert (again.output.read_bytes(), again.kernels.read_bytes()) == before


def test_every_form_competes(model: Path, timed: Times) -> None:
    """A kernel that beats the runtime's own loses to the weight decoded at load, as the float product does."""
    timed |= {FUSED: 1.6e-3, KERNEL: 1.3e-3}
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    reason = "1.00x the time of float; timed on 3 rows: fused 1.60x, decoded 1.00x, kernel 1.30x"
    assert {(row.form, row.reason) for row in result.layers} == {("decoded", reason)}


def test_where_all_lose_the_report_says_slower(model: Path, timed: Times) -> None:
    timed |= {FUSED: 1.6e-3, DECODED: 1.2e-3, KERNEL: 1.3e-3}
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    assert {row.reason.partition(";")[0] for row in result.layers} == {"1.20x the time of float (slower)"}


def test_a_form_that_the_table_avoids_competes(model: Path, timed: Times) -> None:
    timed |= {FUSED: 4e-4, KERNEL: 1.3e-3}
    result = qcc.compile(model, policy("target cpu\nrule linear { weights = int2 group 32 }\n"))
    assert {row.form for row in result.layers} == {"fused"}


def test_a_slower_kernel_is_not_taken(model: Path, timed: Times) -> None:
    timed[KERNEL] = 6e-4
    stale = model.with_name("two.qcc.kernels.so")
    stale.write_bytes(b"of an earlier run")
    result = qcc.compile(model, policy("target cpu\n" + RULE))
    assert {row.form for row in result.layers} == {"fused"} and result.kernels is None and not stale.exists()
    assert [one.code for one in result.warnings] == ["Q503"]


@pytest.mark.parametrize("text", ["target onnxruntime\n" + RULE, "target cpu\n" + RULE + "export { kernels = none }"])
def test_nothing_is_built_unasked(model: Path, timed: Times, text: str) -> None:
    result = qcc.compile(model, policy(text))
    assert result.kernels is None and not result.warnings
    assert result.times is not None and not result.times.with_kernels
    assert {row.form for row in result.layers} == {"fused"}


@pytest.mark.slow
def test_exact_kernels_keep_the_activations(model: Path, timed: Times) -> None:
    result = qcc.compile(model, policy("target cpu\n" + RULE + "export { activations = exact }"))
    x = np.random.default_rng(2).standard_normal((2, 3, 64)).astype(np.float32)
    plain, fast = (Session(result.output, one).run({"x": x})["y"] for one in (False, result.kernels))
    assert np.abs(plain - fast).max() < 1e-5 * np.abs(plain).max()


def test_without_a_compiler_nothing_is_written(model: Path, timed: Times, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("qcc.codegen.library.c_compiler.zig_version", lambda: "")
    with pytest.raises(qcc.QccError, match="need a C compiler") as caught:
        qcc.compile(model, policy("target cpu\n" + RULE))
    assert [one.code for one in caught.value.diagnostics] == ["Q502"]
    assert sorted(path.name for path in model.parent.iterdir()) == ["two.onnx"]


def test_another_processor_is_not_timed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcc.codegen.target.machine.cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    plan, _, _ = decide_plan(model, policy("target cpu(avx512-vnni)\n" + RULE))
    assert plan.kernels == Kernels("cpu", ("avx512-vnni",), "bf16")
    with pytest.raises(qcc.QccError, match="latency cannot be measured") as caught:
        decide_plan(model, policy("target cpu(avx512-vnni)\n" + RULE + "minimize latency"))
    assert [one.code for one in caught.value.diagnostics] == ["Q311"]


def test_targets_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcc.codegen.target.machine.cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    assert kernels_of(policy("target cpu\n" + RULE)) == Kernels("cpu", ("avx2",), "bf16")
    assert kernels_of(policy("target cpu(avx2, native, sapphire-rapids)\n" + RULE)) == Kernels(
        "cpu", ("avx2", "sapphire-rapids"), "bf16"
    )
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(qcc.QccError, match="no native target for riscv64") as caught:
        kernels_of(policy("target cpu\n" + RULE))
    assert caught.value.diagnostics[0].code == "Q501"


def test_latency_binds_and_is_minimised(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bits are slowest here, eight fastest: the choice follows the clock, not the size."""

    def seconds(
        self: Timings, case: Case, encoding: Blocked | None, forms: tuple[Form, ...], how: object = None
    ) -> Times:
        ours = {2: 9e-4, 4: 4e-4, 8: 1e-4}[encoding.bits] if encoding else 0.0
        return {FLOAT: 1e-3, FUSED: 2e-3, DECODED: 1e-3, KERNEL: ours}

    monkeypatch.setattr(Timings, "seconds", seconds)
    monkeypatch.setattr("qcc.compiler.measure.choose_form.time_input", lambda *_: 3e-3)
    rule = "target cpu\nrule linear { weights = int2 group 32 | int4 group 32 | int8 group 32 }\n"
    plan, _, _ = decide_plan(model, policy(rule + "minimize latency"))
    assert [step.action.encoding.bits for step in plan.steps if hasattr(step.action, "encoding")] == [8]
    # 1 ms is neither layer's; with both in four bits it takes 1.8 ms
    plan, _, _ = decide_plan(model, policy(rule + "budget { latency <= 60% }\nminimize size"))
    assert [step.action.encoding.bits for step in plan.steps if hasattr(step.action, "encoding")] == [4]
    with pytest.raises(qcc.BudgetError, match="latency <= 1 ms") as caught:
        decide_plan(model, policy(rule + "budget { latency <= 1 ms }"))
    assert caught.value.diagnostics[0].note == "the smallest feasible latency is 1.2 ms, the budget is 1 ms"


def test_rows_come_from_the_data(model: Path, tmp_path: Path) -> None:
    graph = open_model(model).graph
    data = Samples(({"x": np.zeros((4, 3, 64), np.float32)},), "test", divisible=True)
    assert rows_of(graph, data) == {weight.name: 3 for weight in graph.weights()}
    path = tmp_path / "free.onnx"
    body = BODY.replace("float[batch, 3, 64] x", "float[batch, words, 64] x").replace(
        "[batch, 3, 32] y", "[a, b, 32] y"
    )
    onnx.save(parse(body, {"w1": random(64, 96), "w2": random(96, 32)}, opset=21, ir_version=10), path)
    data = Samples(({"x": np.zeros((4, 7, 64), np.float32)},), "test", divisible=True)
    assert set(rows_of(open_model(path).graph, data).values()) == {7}


@pytest.mark.slow
def test_the_policy_may_say_the_rows(model: Path, timed: Times) -> None:
    result = qcc.compile(model, policy("target cpu\n" + RULE + "export { rows = 1 }"))
    assert "timed on 1 row:" in result.layers[0].reason


def test_timings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: list[str] = []
    kernels = Kernels("cpu", ("avx2",), "exact")
    case = Case(64, 32, 3)
    first = Timings(CPU, kernels, seen.append).seconds(case, GROUP32, (FUSED, DECODED))
    assert set(first) == {FLOAT, FUSED, DECODED} and all(seconds > 0 for seconds in first.values())
    assert seen == ["64x32, 3 rows, int4 group 32 sym scale fp16"]
    again = Timings(CPU, kernels, seen.append)
    assert again.seconds(case, GROUP32, (FUSED, DECODED)) == first and len(seen) == 1
    assert again.seconds(case, None, ()) == {FLOAT: first[FLOAT]} and len(seen) == 1
    (kept,) = (path for path in (tmp_path / "qcc").iterdir() if path.name.startswith("timings-"))
    kept.write_text("broken", encoding="utf-8")
    assert Timings(CPU, kernels, seen.append).seconds(case, None, ())[FLOAT] > 0 and len(seen) == 2


def test_a_chooser_without_kernels_goes_by_the_table(model: Path) -> None:
    weight = open_model(model).graph.weights()[0]
    assert FormChooser(PLAIN)(weight, GROUP32).form == FUSED


CONVS = """
net (float[batch, 16, 6, 6] x) => (float[batch, 24, 6, 6] y)
{
    a = Conv <group = 16, pads = [1,1,1,1]> (x, depth)
    h = Conv (a, w, b)
    c = Relu (h)
    y = Conv (c, v)
}
"""


@pytest.fixture
def convolutions(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    shapes = {"depth": (16, 1, 3, 3), "w": (40, 16, 1, 1), "b": (40,), "v": (24, 40, 1, 1)}
    weights = {name: random(*shape, seed=at) for at, (name, shape) in enumerate(shapes.items())}
    onnx.save(parse(CONVS, weights, opset=21, ir_version=10), path)
    return path


CONV_RULE = "rule conv { weights = int8 channel }\n"


@pytest.mark.slow
def test_convolutions_of_one_point_take_kernels(
    convolutions: Path, timed: Times, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROCESSORS, "sapphire-rapids", with_tiles())
    result = qcc.compile(convolutions, policy("target cpu\n" + CONV_RULE))
    ops = [node.op_type for node in onnx.load(result.output).graph.node if node.domain == "qcc"]
    assert [op for op in ops if op.startswith("conv1x1")] == ["conv1x1_int8_channel_bias_relu", "conv1x1_int8_channel"]
    x = np.random.default_rng(2).standard_normal((2, 16, 6, 6)).astype(np.float32)
    plain, fast = (Session(result.output, one).run({"x": x})["y"] for one in (False, result.kernels))
    assert 0 < np.abs(plain - fast).max() < 0.02 * np.abs(plain).max()  # both factors rounded to bfloat16


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("target cpu(avx2)\n", "these processors have no kernel for convolutions"),
        ("target cpu(sapphire-rapids)\nexport { activations = exact }\n", "have no kernel for convolutions"),
    ],
)
def test_convolutions_without_a_kernel(
    convolutions: Path, timed: Times, target: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(CPU), "runs_here", lambda *_: True)
    graph = open_model(convolutions).graph
    data = Samples(({"x": np.zeros((4, 16, 6, 6), np.float32)},), "test", divisible=True)
    chooser = chooser_of(policy(target + CONV_RULE), graph, data, lambda _: None)
    choices = [chooser(weight, INT8) for weight in graph.weights()]
    assert {one.form for one in choices} == {DECODED}
    assert sum(reason in one.reason for one in choices) == 2


def test_convolutions_are_not_guessed_at(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, chosen = open_model(convolutions).graph, FormChooser(CPU, Kernels("cpu", ("sapphire-rapids",), "bf16"))
    choices = [chosen(weight, INT8) for weight in graph.weights()]
    assert {one.form for one in choices} == {DECODED}
    assert sum("only where it was timed" in one.reason for one in choices) == 2


def test_positions_come_from_the_data_and_rows_do_not_change_them(convolutions: Path) -> None:
    graph = open_model(convolutions).graph
    data = Samples(({"x": np.zeros((4, 16, 6, 6), np.float32)},), "test", divisible=True)
    assert set(rows_of(graph, data).values()) == {36} and len(rows_of(graph, data)) == 2
    text = "target cpu(sapphire-rapids)\n" + CONV_RULE + "export { rows = 1 }"
    chooser = chooser_of(policy(text), graph, data, lambda _: None)
    assert chooser.rows == rows_of(graph, data)


def test_ratios_are_kept_from_rounds_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer timed once more on a machine ten times as busy: what was found before still compares."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    busy = 1.0

    def slow(runs: Sequence[object], turns: Turns) -> np.ndarray:
        return busy * np.outer([1.0, 0.5] if len(runs) == 2 else [1.0], np.ones(turns.rounds))

    monkeypatch.setattr("qcc.compiler.measure.time_forms.interleaved", slow)
    case, timings = Case(64, 32, 3), Timings(PLAIN, None, lambda _: None)
    first = timings.seconds(case, GROUP32, (FUSED,))
    busy = 10.0
    second = timings.seconds(case, INT8, (DECODED,))
    assert first == {FLOAT: 1.0, FUSED: 0.5} and second == {FLOAT: 1.0, DECODED: 0.5}


def test_what_noise_hides_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("qcc.compiler.measure.time_forms.interleaved", lambda runs, turns: _noisy(turns.rounds))
    found = Timings(PLAIN, None, lambda _: None).seconds(Case(64, 32, 3), GROUP32, (DECODED,))
    assert found[DECODED] == found[FLOAT]


def _noisy(rounds: int) -> np.ndarray:
    return np.stack([np.ones(rounds), np.where(np.arange(rounds) % 2, 0.7, 1.4)])


def test_a_convolution_is_timed_among_depthwise_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen: list[str] = []
    found = Timings(PLAIN, None, seen.append).seconds(Case(24, 16, 49, pointwise=True), INT8, (DECODED,))
    assert set(found) == {FLOAT, DECODED} and seen == ["24x16, 49 positions, int8 channel sym scale fp16"]


@pytest.mark.parametrize(
    ("said", "may"),
    [
        ("budget { size <= 50% }", True),
        ("budget { latency <= 50% }", True),
        ("budget { latency(roofline) <= 50% }", False),
        ("budget { energy <= 50% }", False),
        ("budget { traffic(context = 2k) <= 50% }", False),
        ("minimize traffic", False),
    ],
)
def test_forms_that_a_bound_counts_do_not_give_way_to_faster_ones(said: str, may: bool) -> None:
    """Decoded at load weights are floats in memory, and what was decided by their bytes would not hold."""
    policy = load_text(f"qpolicy 1\nrule any {{ weights = int8 channel }}\n{said}\n", schema())
    timed = FormChooser(CPU, Kernels("cpu", ("avx2",), "bf16"), {}, Timings.__new__(Timings))
    assert yields(timed, policy) == may
    assert not yields(FormChooser(CPU, None, {}, None), policy)
