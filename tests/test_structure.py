"""Structured pruning: shapes are really smaller, and the model is what it would be with zeros in what was cut."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcc.__main__ import main
from qcc.compiler.compile import compile
from qcc.compiler.files.open_model import open_model
from qcc.compiler.plan.plan import Plan
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.ir.axes.axes import Action, Axes
from qcc.ir.onnx.graph.run import reference
from qcc.passes.contract.contract import Context
from qcc.passes.structure.channels import Channels
from tests.onnx_models import parse, random

TOLERANCE = 1e-5  # of the largest value: the same terms are added up, without the zeros

# a residual stream of 48 channels with a branch of 80, a depthwise layer in it, and a head that reads the average
NET = """net (float[n,3,8,8] image) => (float[n,5] logits) {
    stem = Conv<pads=[1,1,1,1]>(image, stem_w, stem_b)
    x = Relu(stem)
    up = Conv(x, up_w, up_b)
    deep = Conv<group=80, pads=[1,1,1,1]>(up, deep_w)
    act = Sigmoid(deep)
    down = Conv(act, down_w)
    sum = Add(x, down)
    pooled = GlobalAveragePool(sum)
    sizes = Shape(pooled)
    first = Slice(sizes, zero, one)
    target = Concat<axis=0>(first, whole)
    flat = Reshape(pooled, target)
    logits = Gemm(flat, head_w, head_b)
}"""
SHAPES = {"stem": (48, 3, 3, 3), "up": (80, 48, 1, 1), "deep": (80, 1, 3, 3), "down": (48, 80, 1, 1), "head": (48, 5)}
CONSTANTS = {"zero": np.array([0]), "one": np.array([1]), "whole": np.array([48])}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {f"{name}_w": random(*shape) for name, shape in SHAPES.items()}
    biases = {"stem_b": random(48), "up_b": random(80), "head_b": random(5)}
    path = tmp_path_factory.mktemp("structure") / "net.onnx"
    onnx.save(parse(NET, {**weights, **biases, **CONSTANTS}), path)
    return path


def _policy(text: str) -> str:
    return f"qpolicy 1\n{text}\n"


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {one.name: tuple(one.dims) for one in onnx.load(path).graph.initializer}


def _run(path: Path) -> np.ndarray:
    return reference(path)({"image": random(4, 3, 8, 8)})["logits"]


HALF = "rule conv { structure = channels(keep = 50%) }"


def test_shapes_are_smaller_and_the_rest_computes_what_it_did(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "half.onnx"
    result = compile(model, _policy(HALF), output=output)
    assert result.passed
    assert {one.code for one in result.warnings} in ({"Q650"}, {"Q650", "Q325"})  # nothing is trained here
    shapes = _shapes(output)
    assert shapes["stem_w"] == (24, 3, 3, 3)
    assert (shapes["up_w"], shapes["deep_w"], shapes["down_w"]) == ((40, 24, 1, 1), (40, 1, 3, 3), (24, 40, 1, 1))
    assert (shapes["stem_b"], shapes["head_w"]) == ((24,), (24, 5))
    (group,) = {a.i for node in onnx.load(output).graph.node for a in node.attribute if a.name == "group" and a.i > 1}
    assert group == 40
    assert output.stat().st_size < 0.5 * model.stat().st_size
    np.testing.assert_allclose(_run(output), _zeroed(model, 0.5), rtol=0, atol=TOLERANCE * np.abs(_run(output)).max())
    onnx.checker.check_model(str(output), full_check=True)


def _zeroed(model: Path, keep: float) -> np.ndarray:
    """What numpy makes of it: zeros in the rows of the least channels, with their biases, and in what reads them."""
    arrays = {one.name: onnx.numpy_helper.to_array(one).copy() for one in onnx.load(model).graph.initializer}
    power = {name: np.square(array.astype(np.float64)) for name, array in arrays.items()}
    stream = [
        power["stem_w"].sum((1, 2, 3)),
        power["down_w"].sum((1, 2, 3)),
        power["up_w"].sum((0, 2, 3)),
        power["head_w"].sum(1),
    ]
    inner = [power["up_w"].sum((1, 2, 3)), power["deep_w"].sum((1, 2, 3)), power["down_w"].sum((0, 2, 3))]
    for scores, constants in (
        (stream, ("stem_w.0", "stem_b.0", "down_w.0", "up_w.1", "head_w.0")),
        (inner, ("up_w.0", "up_b.0", "deep_w.0", "down_w.1")),
    ):
        total = np.sum([one / one.mean() for one in scores], axis=0)
        gone = np.argsort(-total, kind="stable")[round(keep * len(total)) :]
        for name, _, axis in (one.partition(".") for one in constants):
            np.moveaxis(arrays[name], int(axis), 0)[gone] = 0
    proto = onnx.load(model)
    for one in proto.graph.initializer:
        one.CopyFrom(onnx.numpy_helper.from_array(arrays[one.name], one.name))
    zeroed = model.with_name("zeroed.onnx")
    onnx.save(proto, zeroed)
    return _run(zeroed)


@pytest.mark.slow
def test_what_is_left_is_encoded_under_rules_for_what_is_left(model: Path, tmp_path: Path) -> None:
    """The rule for layers of few parameters sees the shapes after the cut."""
    text = HALF + "\nrule conv[params <= 1000] { weights = int4 channel }\nrule linear { weights = int8 channel }"
    result = compile(model, _policy(text), output=tmp_path / "half.onnx")
    encoded = {row.name: (row.shape, row.format) for row in result.layers if row.form}
    assert all(text == "int4 channel sym scale fp16" for _, text in encoded.values())
    assert {name: shape for name, (shape, _) in encoded.items() if name in ("up_w", "down_w")} == {
        "up_w": (40, 24),  # 3,840 parameters before
        "down_w": (24, 40),
    }
    assert [type(step.action).__name__ for step in result.plan.steps][:2] == ["Clean", "Channels"]


@pytest.mark.slow
def test_a_plan_cuts_again(model: Path, tmp_path: Path) -> None:
    plan = compile(model, _policy(HALF), output=tmp_path / "one.onnx").plan
    again: Plan = from_text(Source("p.plan", to_text(plan)))
    assert again == plan
    compile(model, _policy("rule any { keep }"), output=tmp_path / "two.onnx", plan=again)
    assert _shapes(tmp_path / "two.onnx") == _shapes(tmp_path / "one.onnx")


def test_a_lossy_cut_is_held_to_the_bounds_of_the_policy(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "strict.onnx"
    result = compile(model, _policy(HALF + "\nverify { relative_error <= 0.01% }"), output=output)
    assert not result.passed
    assert not output.exists()


@pytest.mark.slow
def test_a_cut_that_nothing_bounds_is_told_once(model: Path, tmp_path: Path) -> None:
    result = compile(model, _policy(HALF), output=tmp_path / "half.onnx")
    (warning,) = [one for one in result.warnings if one.code == "Q650"]
    told = "channels(keep = 50%, by = magnitude, refit = false, behind = false, of = each, multiple = 8)"
    assert f"`structure = {told}`" in warning.message and "verify" in (warning.help or "")
    again = compile(model, _policy("rule any { keep }"), output=tmp_path / "two.onnx", plan=result.plan)
    assert [one.code for one in again.warnings].count("Q650") == 1
    for text in (HALF + "\nverify { cosine >= -0.99 }", "rule linear { structure = channels(keep = 50%) }"):
        codes = {one.code for one in compile(model, _policy(text), output=tmp_path / "three.onnx").warnings}
        assert "Q650" not in codes


def test_nothing_to_cut_is_told(model: Path, tmp_path: Path) -> None:
    text = _policy("rule linear { structure = channels(keep = 50%) }")
    result = compile(model, text, output=tmp_path / "same.onnx")
    (warning,) = [one for one in result.warnings if one.code == "Q520"]
    assert "`logits` is an output of the model" in warning.message


@pytest.mark.parametrize(
    "value", ["channels", "channels(keep = 0%)", "channels(keep = 101%)", "channels(keep = 0.5)", "channel(keep = 5%)"]
)
def test_what_is_no_share_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.qpolicy"
    path.write_text(_policy(f"rule conv {{ structure = {value} }}"), encoding="utf-8")
    with pytest.raises(QccError) as caught:
        compile("none.onnx", path)
    assert all(one.code.startswith("Q2") for one in caught.value.diagnostics)


def test_a_layer_that_is_not_asked_keeps_what_it_writes(model: Path) -> None:
    graph = open_model(model).graph
    names = [weight.name for weight in graph.weights()]
    asked = [name for name in names if name != "stem_w"]
    sites = {site.subject: site.refused for site in Channels(keep=0.5).sites(graph, asked)}
    assert any("`stem_w` writes them too" in reason for reason in sites.values())
    after, edits = Channels(keep=0.5).apply(graph, asked, Context())
    assert [edit.text for edit in edits if not edit.refused] == ["80 -> 40 channels"]
    assert {weight.name: weight.shape for weight in after.weights()}["stem_w"] == (48, 27)


def test_all_of_it_stays(model: Path) -> None:
    graph = open_model(model).graph
    names = [weight.name for weight in graph.weights()]
    after, edits = Channels(keep=1.0).apply(graph, names, Context())
    assert not [edit for edit in edits if not edit.refused]
    assert [weight.shape for weight in after.weights()] == [weight.shape for weight in graph.weights()]


def test_heads_stay_and_lose_channels(tmp_path: Path) -> None:
    from tests.axes_models import chain

    graph = chain(["attention", "fused"], 0)
    names = [weight.name for weight in graph.weights()]
    after, edits = Channels(keep=0.5).apply(graph, names, Context())
    cut = [edit.text for edit in edits if not edit.refused]
    assert cut.count("4 -> 2 channels") == 3  # queries with keys, values, and both where one layer makes them
    heads = [group.size for group in Axes.of(after).groups(Action.SELECT) if group.size == 4]
    assert len(heads) >= 2


@pytest.mark.slow
def test_the_command_tells_what_was_cut(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "half.qpolicy"
    policy.write_text(_policy(HALF), encoding="utf-8")
    assert main(["compile", str(model), "-p", str(policy), "-o", str(tmp_path / "half.onnx")]) == 0
    told = "channels(keep = 50%, by = magnitude, refit = false, behind = false, of = each, multiple = 8)"
    assert f"structure = {told}: 2 sites" in capsys.readouterr().out


TWICE = "rule conv[out == 80] {{ structure = channels(keep = 50%, by = {by}, refit = {refit}, behind = {behind}) }}"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of which each inner channel is there twice, the second time smaller behind it, among others."""
    weights = {f"{name}_w": random(*shape) for name, shape in SHAPES.items()}
    biases = {"stem_b": random(48), "up_b": random(80), "head_b": random(5), "down_b": random(48)}
    order = np.random.default_rng(3).permutation(80)
    for name in ("up_w", "deep_w", "up_b"):
        array = {**weights, **biases}[name]
        array[order[40:]] = array[order[:40]]
    path = tmp_path_factory.mktemp("twice") / "net.onnx"
    text = NET.replace("Conv(act, down_w)", "Conv(act, down_w, down_b)")
    onnx.save(parse(text, {**weights, **biases, **CONSTANTS}), path)
    return path


def _images(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(5)
    return [{"image": draw.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def _lost(model: Path, output: Path) -> float:
    wanted, found = _run(model), _run(output)
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


@pytest.mark.slow
def test_channels_that_others_tell_go_without_a_loss(twice: Path, tmp_path: Path) -> None:
    lost = {}
    for by, refit in (("magnitude", "false"), ("magnitude", "true"), ("magnitude", "behind"), ("obs", "true")):
        output = tmp_path / f"{by}{refit}.onnx"
        asked = {"refit": "true", "behind": "true"} if refit == "behind" else {"refit": refit, "behind": "false"}
        result = compile(twice, _policy(TWICE.format(by=by, **asked)), output=output, data=_images(24))
        assert result.passed
        assert _shapes(output)["down_w"] == (48, 40, 1, 1)
        lost[by, refit] = _lost(twice, output)
    assert lost["magnitude", "true"] < lost["magnitude", "false"]
    assert lost["magnitude", "behind"] < lost["magnitude", "true"]
    assert lost["obs", "true"] < 0.01 * lost["magnitude", "false"]


def test_what_is_fitted_needs_data(model: Path, tmp_path: Path) -> None:
    with pytest.raises(QccError) as caught:
        compile(model, _policy(TWICE.format(by="obs", refit="false", behind="false")), output=tmp_path / "none.onnx")
    assert [one.code for one in caught.value.diagnostics] == ["Q523"]
