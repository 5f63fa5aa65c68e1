"""Latency of a token: what is timed is one token behind so many, and what it moves grows with each by as much."""

from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.calibrate.samples import load
from qcc.compiler.plan.catalog import schema
from qcc.compiler.sequence.one_step import behind, model_of_steps, step_feeds, step_samples
from qcc.compiler.work.step_traffic import _moved, step_traffic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.ir.onnx.adapter import OnnxGraph
from tests.onnx_models import Case
from tests.test_sequence import BODY, CONSTANTS, HEADS, WIDTH, feeds_of

POLICY = """qpolicy 1
rule linear { weights = int8 channel | int4 group 16 }
budget { latency(context = 200, generate = 40) <= 500% }
"""


def saved(folder: Path) -> Path:
    np.savez(
        folder / "text.npz",
        allow_pickle=False,
        **{name: one for name, one in feeds_of(8, 12).items() if "past" not in name},
    )
    (folder / "one.qpolicy").write_text(POLICY.replace("rule", 'calibrate "text.npz"\nrule', 1), encoding="utf-8")
    return Case(BODY, CONSTANTS, {}, opset=21).save(folder)


def test_a_step_is_one_token_behind_others(tmp_path: Path) -> None:
    policy = load_text(POLICY, schema())
    assert behind(policy) == 220
    graph = OnnxGraph.load(saved(tmp_path))
    data = load([{name: one for name, one in feeds_of(1, 12).items() if "past" not in name}], graph, None, 0)
    (feeds,) = step_samples(policy, graph, data).parts(1)
    assert {name: array.shape for name, array in feeds.items()} == {
        "ids": (1, 1),
        "position_ids": (1, 1),
        "attention_mask": (1, 221),
        "past_key": (1, HEADS, 220, WIDTH),
        "past_value": (1, HEADS, 220, WIDTH),
    }
    graph.runner(list(feeds), ["logits"])(feeds)
    assert step_samples(load_text(POLICY.replace("(context = 200, generate = 40)", ""), schema()), graph, data) is data


def test_what_a_step_moves_grows_with_each_row_alike(tmp_path: Path) -> None:
    graph = OnnxGraph.load(saved(tmp_path))
    graph.simplify()
    data = load([{name: one for name, one in feeds_of(1, 12).items() if "past" not in name}], graph, None, 0)
    model, feeds = model_of_steps(graph, data)
    traffic = step_traffic(graph, model, feeds)
    ops = [op for op in graph.ops() if op.function not in ("reshape", "unsqueeze", "squeeze", "shape")]
    ops = [op for op in ops if any(name and graph.constant(name) is None for name in op.inputs)]
    assert traffic.bytes_behind(100) == _moved(graph, ops, step_feeds(model, feeds, 100))
    weights = sum(CONSTANTS[name].nbytes for name in ("wq", "wk", "wv", "head"))
    assert weights < traffic.token < 3 * weights
    assert traffic.row > 2 * 4 * HEADS * WIDTH * 3  # each row is read and written by a Concat, and read by a product
    assert 0 < traffic.share(10) < traffic.share(1000) < 1


def test_a_bound_of_a_token_is_told(tmp_path: Path) -> None:
    result = qcc.compile(saved(tmp_path), tmp_path / "one.qpolicy", output=tmp_path / "out.onnx")
    (told,) = (one for one in result.costs if one.row == "latency")
    assert told.note.startswith("a token behind 220, of which caches in floats take")
    assert result.times is not None


def test_a_model_without_steps_reject(tmp_path: Path) -> None:
    body = "g (float[B, 8] x) => (float[B, 11] y) { y = MatMul (x, w) }"
    path = Case(body, {"w": CONSTANTS["head"][:8]}, {}).save(tmp_path)
    with pytest.raises(QccError) as raised:
        qcc.compile(path, POLICY, output=tmp_path / "out.onnx")
    assert [one.code for one in raised.value.diagnostics] == ["Q774"]
    assert not (tmp_path / "out.onnx").exists()
