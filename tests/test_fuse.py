"""Attentions as one op: they compute what they did, to 1e-5, and what no op computes stays as it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import qcc
from qcc.__main__ import main
from qcc.compiler.report.result import Result
from qcc.ir.attention.find import attentions
from qcc.ir.errors import ModelError, Refused
from qcc.ir.graph.attention import Attention, OneOp
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.opset import raise_opset
from tests import attention_models as models
from tests.attention_models import BATCH, HEADS, ROWS, WIDTH, Spelling, case
from tests.onnx_models import random

TOLERANCE = 1e-5  # of the largest result: two sums of a few products and a softmax, in float32


def fused(folder: Path, spelling: Spelling, feeds: dict[str, np.ndarray] | None = None) -> OnnxGraph:
    """The graph with every attention as one op, which computes the same."""
    one = case(spelling)
    graph = OnnxGraph.load(one.save(folder))
    graph.simplify()
    after = graph.copy()
    for found in attentions(graph, one.feeds):
        assert isinstance(found, Attention), found
        after.write_attention(found, OneOp())
    given = {**one.feeds, **(feeds or {})}
    names = [value.name for value in graph.outputs]
    wanted, got = (part.runner(list(given), names)(given) for part in (graph, after))
    for name in names:
        assert got[name].shape == wanted[name].shape
        assert np.abs(got[name] - wanted[name]).max() <= TOLERANCE * np.abs(wanted[name]).max(), name
    return after


def functions(graph: OnnxGraph) -> list[str]:
    return [op.function for op in graph.ops() if op.kind == "attention"]


def causal_past() -> Spelling:
    """Rows of earlier runs before heads that share keys, behind a mask that hides what comes later."""
    seen = np.where(np.tri(ROWS, ROWS + 3, 3, dtype=bool), 0, -3e38).astype(np.float32)
    body = models.GROUPED.body.replace(
        "k5 = Unsqueeze (kh", "key_all = Concat <axis = 2> (past_key, kh)\n k5 = Unsqueeze (key_all"
    )
    body = body.replace(
        "v5 = Unsqueeze (vh", "value_all = Concat <axis = 2> (past_value, vh)\n v5 = Unsqueeze (value_all"
    )
    names, held = ("past_key", "past_value"), f"float[{BATCH}, {models.SHARED}, T, {WIDTH}]"
    return replace(
        models.GROUPED,
        body=body,
        constants={**models.GROUPED.constants, "mask": seen},
        inputs={name: random(BATCH, models.SHARED, 3, WIDTH, seed=at) for at, name in enumerate(names)},
        types=dict.fromkeys(names, held.replace("T", "P")),
        outputs=f", {held} key_all, {held} value_all",
    )


def windowed(heads: int = 1) -> Spelling:
    """Samples are windows of images, and a mask of five axes is another for each."""
    mask = np.where(random(1, BATCH, heads, ROWS, ROWS, seed=5) > 0.8, -100, 0).astype(np.float32)
    added = "w = Mul (s, scale)\n w5 = Reshape (w, five)\n m5 = Add (w5, mask)\n z = Reshape (m5, four)"
    body = models.PLAIN.body.replace("z = Mul (s, scale)", added)
    shapes = {"five": models.whole(-1, BATCH, HEADS, ROWS, ROWS), "four": models.whole(-1, HEADS, ROWS, ROWS)}
    return replace(models.PLAIN, body=body, constants={**models.PLAIN.constants, **shapes, "mask": mask})


SPELLINGS = {
    "windowed": windowed(),
    "windowed by heads": windowed(HEADS),
    "plain": models.PLAIN,
    "grouped": models.GROUPED,
    "half": models.turned("half"),
    "interleaved": models.turned("interleaved"),
    "past": models.PAST,
    "masked_past": models.MASKED_PAST,
    "grouped_past": causal_past(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_one_op_computes_the_same(tmp_path: Path, name: str) -> None:
    after = fused(tmp_path, SPELLINGS[name])
    assert functions(after) == ["attention"]
    assert "softmax" not in [op.function for op in after.ops()]


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_queries_and_keys_share_their_tables(tmp_path: Path, layout: str) -> None:
    """As do all attentions of as many rows: a node for each would take longer than a token's attention."""
    turning = [op.inputs[1:] for op in fused(tmp_path, models.turned(layout)).ops() if "Rotary" in op.function]
    assert len(turning) == 2 and turning[0] == turning[1]


def test_hidden_columns_stay_hidden(tmp_path: Path) -> None:
    """A mask of padding is read at each run."""
    mask = np.ones((BATCH, ROWS + 3), np.int64)
    mask[0, :2] = 0
    fused(tmp_path, models.MASKED_PAST, {"attention_mask": mask})


def test_a_mask_of_all_rows_is_read_as_it_is(tmp_path: Path) -> None:
    """One that the model computes; one that is fed or stored may have a row for all."""
    computed = replace(models.GROUPED, body=models.GROUPED.body.replace("Add (s, mask)", "Add (s, mask2)"))
    computed = replace(computed, body="mask2 = Mul (mask, one)\n" + computed.body)
    computed = replace(computed, constants={**computed.constants, "one": models.scalar(1)})
    computed = replace(
        computed,
        inputs={"mask": np.array(models.GROUPED.constants["mask"])},
        types={"mask": f"float[1, 1, {ROWS}, {ROWS}]"},
        constants={name: array for name, array in computed.constants.items() if name != "mask"},
    )
    expanded = [
        len([op for op in fused(tmp_path, one).ops() if op.function == "expand"]) for one in (models.GROUPED, computed)
    ]
    assert expanded == [1, 0]


@pytest.mark.parametrize("fill", [-1e9, -np.inf])
def test_rows_that_see_nothing(tmp_path: Path, fill: float) -> None:
    """All that is hidden weighs the same where it is set to a low number, and nothing where that is infinite."""
    seen = np.tri(ROWS, dtype=bool)
    seen[1] = False
    body = models.CAPPED.body.replace("Where (mask, high", "Where (mask, s").replace("y = MatMul (p, vh)", "")
    rest = "bad = IsNaN (p)\n good = Where (bad, zero, p)\n y = MatMul (good, vh)"
    constants = {**models.CAPPED.constants, "mask": seen, "never": models.scalar(fill), "zero": models.scalar(0)}
    fused(tmp_path, replace(models.CAPPED, body=body + rest, constants=constants))


@pytest.mark.parametrize("low", [np.finfo(np.float32).min, -np.inf])
def test_rows_that_a_bias_hides(tmp_path: Path, low: float) -> None:
    """The lowest number is none that is infinite: Hugging Face's masks hold it."""
    seen = np.tri(ROWS, dtype=bool)
    seen[1] = False
    mask = np.where(seen, 0, low).astype(np.float32)[None, None]
    fused(tmp_path, replace(models.GROUPED, constants={**models.GROUPED.constants, "mask": mask}))


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        (replace(models.PLAIN, outputs=", float p"), "others read its weights"),
        (models.SINKS, "counts further scores"),
        (models.STANDARD, "one op already"),
        (models.MANY, "one op already"),
        (models.CAPPED, "scores are bounded"),
    ],
)
def test_what_no_op_computes_reject(tmp_path: Path, spelling: Spelling, why: str) -> None:
    one = case(spelling)
    graph = OnnxGraph.load(one.save(tmp_path))
    graph.simplify()
    before = graph.digest()
    (found,) = attentions(graph, one.feeds)
    assert isinstance(found, Attention)
    with pytest.raises(Refused, match=why):
        graph.write_attention(found, OneOp())
    assert graph.digest() == before


def compiled(folder: Path, text: str) -> Result:
    policy = folder / "fuse.qpolicy"
    policy.write_text(f"qpolicy 1\n{text}\n")
    return qcc.compile(case(models.PLAIN).save(folder), policy, output=folder / "out.onnx")


def test_a_rule_about_attentions(tmp_path: Path) -> None:
    """What is about no layer stands beside what is, and the plan runs again."""
    result = compiled(tmp_path, "rule linear { weights = int8 channel }\nrule attention { fuse = on }")
    assert functions(OnnxGraph.load(tmp_path / "out.onnx")) == ["attention"]
    assert [row.action for row in result.rewrites if row.treated] == ["clean", "fuse = on"]
    lock = json.loads((tmp_path / "out.lock").read_text())
    assert "fuse" in json.dumps(lock)
    model, content = tmp_path / "model.onnx", (tmp_path / "out.onnx").read_bytes()
    assert main(["compile", str(model), "--plan", str(tmp_path / "out.lock"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert OnnxGraph.load(tmp_path / "again.onnx").digest() == OnnxGraph.load(tmp_path / "out.onnx").digest()
    assert content


def test_a_raised_opset_is_told(tmp_path: Path) -> None:
    result = compiled(tmp_path, "rule linear { weights = int8 channel }\nrule attention { fuse = on }")
    before, after = (OnnxGraph.load(tmp_path / name).opset for name in ("model.onnx", "out.onnx"))
    assert before < after == 23
    assert f"opset {before} -> 23: a runtime must know that version" in result.notes


def test_a_model_that_cannot_be_raised_stays_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: ir.Model, target: int) -> tuple[str, ...]:
        if target < 23:
            return raise_opset(model, target)
        raise ModelError("Q407", "the model's opset cannot be raised from 17 to 23")

    monkeypatch.setattr("qcc.ir.onnx.adapter.raise_opset", refuse)
    result = compiled(tmp_path, "rule linear { weights = int8 channel }\nrule attention { fuse = on }")
    (row,) = (row for row in result.rewrites if row.action == "fuse = on")
    assert not row.treated and "cannot be raised" in row.refused[0].text
    assert functions(OnnxGraph.load(tmp_path / "out.onnx")) == []


def test_a_later_rule_leaves_them(tmp_path: Path) -> None:
    text = 'rule attention { fuse = on }\nrule attention[name ~ "*"] { fuse = off }'
    compiled(tmp_path, f"rule linear {{ weights = int8 channel }}\n{text}")
    assert functions(OnnxGraph.load(tmp_path / "out.onnx")) == []


def test_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is set for attentions is told behind the layers."""
    policy = tmp_path / "fuse.qpolicy"
    policy.write_text("qpolicy 1\nrule linear { weights = int8 channel }\nrule attention { fuse = on }\n")
    model = case(models.PLAIN).save(tmp_path)
    assert main(["explain", str(model), "-p", str(policy)]) == 0
    *_, head, line = capsys.readouterr().out.strip().splitlines()
    assert head.endswith("attention")
    assert line.split()[:3] == ["fuse", "on", f"{policy}:3:18"]
    assert main(["explain", str(model), "-p", str(policy), "--format=json"]) == 0
    (other,) = json.loads(capsys.readouterr().out)["others"]
    assert other["kind"] == "attention"


def test_names_that_there_are_not_reject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "fuse.qpolicy"
    policy.write_text('qpolicy 1\nrule attention[name == "other"] { fuse = on }\n')
    model = case(models.PLAIN).save(tmp_path)
    assert main(["compile", str(model), "-p", str(policy), "-o", str(tmp_path / "out.onnx")]) != 0
    assert "Q301" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    "text",
    [
        "rule linear { fuse = on }",
        "rule any { fuse = on }",
        "rule attention { weights = int8 channel }",
        "rule attention { keep }",
        "rule linear, attention { fuse = on }",
    ],
)
def test_properties_of_others_reject(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "fuse.qpolicy"
    policy.write_text(f"qpolicy 1\n{text}\n")
    assert main(["check", str(policy)]) == 1
    assert "Q560" in capsys.readouterr().err + capsys.readouterr().out


def scaled_by_heads() -> Spelling:
    """All is held by heads."""
    turned = "".join(f"{name}x = Tanh ({name}h)\n" for name in "qkv")
    product = "kt = Transpose <perm = [0, 1, 3, 2]> (kx)\n s = MatMul (qx, kt)\n"
    rest = "z = Mul (s, scales)\n p = Softmax <axis = -1> (z)\n y = MatMul (p, vx)"
    return replace(models.BY_HEAD, body=f"{models.split()}\n{turned}{product}{rest}")


@pytest.mark.parametrize("spelling", [models.BY_HEAD, scaled_by_heads()])
def test_a_scale_for_each_head(tmp_path: Path, spelling: Spelling) -> None:
    assert functions(fused(tmp_path, spelling)) == ["attention"]
