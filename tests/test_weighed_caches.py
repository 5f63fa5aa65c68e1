"""Formats and rows of caches are chosen with formats of weights: the program's choice is the best of all there are."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import qcc
from qcc.compiler.allocate.settle import Settled
from qcc.compiler.analyze.estimate import estimate
from qcc.compiler.compilation import Compilation
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.plan import Allocate, Candidate, OpenChoice, Plan
from qcc.compiler.plan.policy import load_policy
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.compiler.report.lock import plan_of
from qcc.compiler.sweep.sweep import sweep
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.load import load_text
from qcc.dsl.policy.policy import to_text as to_policy_text
from qcc.passes.cache.cache import Cache
from tests.onnx_models import Case, random
from tests.test_evicted_rows import two_layers
from tests.test_sequence import ALL, CONSTANTS, HEADS, WIDTH, WORDS, feeds_of

TOKENS, MANY = 24, 64
BOTH = "keys = int8 channel | int4 channel, values = int8 channel | int4 channel"
FLOAT_BYTES = 2 * 2 * HEADS * TOKENS * WIDTH * 4  # of keys and values of two caches
Allowed = Callable[[OpenChoice, Candidate], bool]
NEAR = 1e-9  # of a sum of losses, added in another order


def saved(folder: Path, policy: str, words: int = WORDS) -> tuple[Path, Path]:
    """A model of two attentions, texts, and a policy beside them."""
    constants = CONSTANTS | {"table": random(words, ALL), "head": random(ALL, words, seed=4)}
    constants |= {f"{name}1": constants[name][::-1].copy() for name in ("wq", "wk", "wv")}
    body = re.sub(r"\(x1, (w.)\)", r"(x1, \g<1>1)", two_layers())
    body = body.replace(f", {WORDS}] logits", f", {words}] logits")
    path = Case(body, constants, {}, opset=23).save(folder)
    texts = {name: array for name, array in feeds_of(8, TOKENS).items() if "past" not in name}
    np.savez(folder / "text.npz", allow_pickle=False, **texts)
    written = folder / "caches.qpolicy"
    written.write_text(f'qpolicy 1\ncalibrate "text.npz"\n{policy}\n', encoding="utf-8")
    return path, written


def decided(folder: Path, policy: str, words: int = WORDS) -> tuple[Plan, Settled]:
    """A plan as it was open, and what became of it."""
    path, written = saved(folder, policy, words)
    loaded = load_policy(written)
    runs = [
        Compilation.prepare(path, loaded, folder / "out.onnx", None, None, lambda *_: None) for _ in ("open", "decide")
    ]
    return runs[0].open(None).plan, runs[1].decide(None)


def best_of(allocate: Allocate, settled: Settled, allowed: Allowed = lambda _, __: True) -> float:
    """The least loss of all choices within the limits, found by trying each; of candidates that are allowed."""
    assert settled.losses is not None
    ways = [[at for at, candidate in enumerate(one.candidates) if allowed(one, candidate)] for one in allocate.options]
    names = [row.metric for row in allocate.limits]
    room = np.array([row.bound - allocate.fixed.get(row.metric, 0.0) for row in allocate.limits])
    rows = [
        np.array([[*(one.candidates[at].costs.get(name, 0.0) for name in names), loss[at]] for at in way])
        for one, loss, way in zip(allocate.options, settled.losses.loss, ways, strict=True)
    ]
    sums = np.zeros((1, len(names) + 1))
    for one in rows:
        sums = (sums[:, None] + one[None]).reshape(-1, len(names) + 1)
    return float(sums[(sums[:, :-1] <= room).all(1), -1].min(initial=np.inf))


def test_formats_are_the_best_within_the_bytes_of_caches(tmp_path: Path) -> None:
    plan, settled = decided(tmp_path, f"rule cache {{ {BOTH} }}\nbudget {{ cache(context = {TOKENS}) <= 20% }}")
    allocate, decision = plan.allocate, settled.decision
    assert allocate is not None and decision is not None and settled.losses is not None
    assert [len(one.candidates) for one in allocate.options] == [4, 4]
    assert [one.bound for one in allocate.limits] == [pytest.approx(0.2 * FLOAT_BYTES)]
    costs = sorted({one.costs["cache"] for option in allocate.options for one in option.candidates})
    assert costs == [FLOAT_BYTES / 16, FLOAT_BYTES * 3 / 32, FLOAT_BYTES / 8]
    assert all((one > 0).all() for one in settled.losses.loss)
    assert abs(decision.predicted_error - best_of(allocate, settled)) <= NEAR
    labels = {step.action.label for step in settled.plan.steps if isinstance(step.action, Cache)}
    assert len(labels) > 1


def test_one_bound_trades_bits_of_weights_against_formats_and_rows(tmp_path: Path) -> None:
    """Equal to trying all, and better than weights alone or caches alone at as many bytes."""
    rule = f"rule cache {{ {BOTH}; budget = 9, window = 2, sinks = 1 }}"
    policy = f"rule linear {{ weights = int4 group 16 | float }}\n{rule}\n"
    plan, settled = decided(tmp_path, policy + f"budget {{ traffic(context = {TOKENS}) <= 40.3% }}", MANY)
    allocate, decision = plan.allocate, settled.decision
    assert allocate is not None and decision is not None
    assert [one.metric for one in allocate.limits] == ["traffic", "rows.0"]
    assert [len(one.candidates) for one in allocate.options] == [2] * 7 + [20] * 2
    assert abs(decision.predicted_error - best_of(allocate, settled)) <= NEAR

    def of_weights(kept: str) -> Allowed:
        return lambda option, one: option.stores_weight or one.text == f"{kept}, at most 9 rows"

    def of_caches(kept: str) -> Allowed:
        return lambda option, one: not option.stores_weight or (one.text == "float") == (kept == "float")

    formats = {one.text.rpartition(",")[0] for one in allocate.options[-1].candidates}
    assert len(formats) == 4
    assert decision.predicted_error < min(best_of(allocate, settled, of_weights(one)) for one in formats)
    assert decision.predicted_error < min(best_of(allocate, settled, of_caches(one)) for one in ("float", "int4"))
    rows = [step.action.budget for step in settled.plan.steps if isinstance(step.action, Cache) for _ in step.weights]
    assert sum(rows) <= 18
    assert from_text(Source("plan", to_text(plan))) == plan


@pytest.mark.slow
def test_a_decided_plan_makes_the_same_file(tmp_path: Path) -> None:
    rule = f"rule cache {{ {BOTH}; budget = 6, window = 2, sinks = 1 }}\nbudget {{ cache(context = 24) <= 8% }}"
    path, policy = saved(tmp_path, rule)
    result = qcc.compile(path, policy, output=tmp_path / "out.onnx")
    assert result.allocation is not None
    (row,) = result.costs
    assert (row.row, row.before) == ("cache", FLOAT_BYTES)
    assert row.after <= 0.08 * FLOAT_BYTES
    assert {one.layer for one in result.allocation.alternatives if one.chosen} == {"past_key0", "past_key1"}
    again = qcc.compile(path, plan=plan_of(result.lock), data=tmp_path / "text.npz", output=tmp_path / "again.onnx")
    assert again.output.read_bytes() == result.output.read_bytes()
    assert again.plan.steps == result.plan.steps


def test_float_is_a_format(tmp_path: Path) -> None:
    _, settled = decided(tmp_path, "rule cache { keys = int4 channel | float }")
    assert not any(isinstance(step.action, Cache) for step in settled.plan.steps)
    assert not settled.plan.kept or all("past" not in one.weight for one in settled.plan.kept)


def test_what_a_cache_refuses_is_no_candidate(tmp_path: Path) -> None:
    _, settled = decided(tmp_path, "rule cache { keys = int8 group 5 | int4 group 4 }")
    (action,) = (step.action for step in settled.plan.steps if isinstance(step.action, Cache))
    assert "int4 group 4" in action.label


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (f"rule cache {{ {BOTH} }}\nminimize size", "Q690"),
        ("rule cache { keys = int8 group 5 | int4 group 5 }", "Q463"),
        (f"rule cache {{ {BOTH}; form = fused }}", "Q463"),
        ("rule cache { keys = int8 group 5 }\nbudget { cache <= 80% }", "Q465"),
        (f"rule cache {{ {BOTH} }}\nbudget {{ cache(context = 24) <= 2% }}", "Q310"),
        ("rule cache { budget = 12, window = 2 }\nbudget { cache <= 50% }", "Q771"),
    ],
)
def test_choices_of_caches_reject(tmp_path: Path, policy: str, code: str) -> None:
    path, written = saved(tmp_path, policy)
    with pytest.raises(QccError) as raised:
        qcc.compile(path, written, output=tmp_path / "out.onnx")
    assert [one.code for one in raised.value.diagnostics] == [code]
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("row", ["cache", "traffic(context = 2k)"])
def test_models_without_caches_reject(tmp_path: Path, row: str) -> None:
    body = "g (float[n, 32] x) => (float[n, 8] y) { y = MatMul(x, w) }"
    path = Case(body, {"w": random(32, 8)}, {}).save(tmp_path)
    with pytest.raises(QccError) as raised:
        qcc.compile(path, f"rule linear {{ weights = int8 channel }}\nbudget {{ {row} <= 50% }}")
    assert [one.code for one in raised.value.diagnostics] == ["Q464"]


def test_depth_is_not_decided_with_caches_reject(tmp_path: Path) -> None:
    depth = 'depth { leave_out = "*", at_most = 1 }\nbudget { cache(context = 24) <= 20% }'
    path, policy = saved(
        tmp_path, f"rule linear {{ weights = int4 channel | int8 channel }}\nrule cache {{ {BOTH} }}\n{depth}"
    )
    with pytest.raises(QccError) as raised:
        qcc.compile(path, policy, output=tmp_path / "out.onnx")
    assert [one.code for one in raised.value.diagnostics] == ["Q466"]


@pytest.mark.slow
def test_a_sweep_holds_the_bound_of_caches(tmp_path: Path) -> None:
    rules = f"rule linear {{ weights = int4 channel | int8 channel }}\nrule cache {{ {BOTH} }}"
    path, policy = saved(tmp_path, f"{rules}\nbudget {{ cache(context = 24) <= 20% }}", MANY)
    points = sweep(path, policy).points
    assert len(points) > 1
    assert all(one.loss > other.loss for one, other in pairwise(points))


def test_what_it_takes_is_told_where_caches_are_open(tmp_path: Path) -> None:
    path, policy = saved(tmp_path, f"rule cache {{ {BOTH}; budget = 6, window = 2, sinks = 1 }}\nminimize top_kl")
    assert estimate(path, load_policy(policy)).measuring_s > 0


def test_rows_of_caches_as_the_language_has_them() -> None:
    rows = "budget { cache(context = 2k) <= 20%, traffic <= 64MiB }\nminimize traffic"
    text = f"rule cache {{ {BOTH}; budget = 256 }}\n{rows}"
    policy = load_text(f"qpolicy 1\n{text}\n", schema())
    assert [one.text for one in policy.budget] == ["cache(context = 2k) <= 20%", "traffic <= 64 MiB"]
    assert to_policy_text(load_text(to_policy_text(policy), schema())) == to_policy_text(policy)


@pytest.mark.parametrize(
    ("bound", "code"),
    [
        ("cache(length = 2k) <= 20%", "Q212"),
        ("cache(context = 2k, generate = 512) <= 20%", "Q212"),
        ("traffic(context = 0) <= 20%", "Q203"),
        ("cache <= 20ms", "Q215"),
    ],
)
def test_rows_of_caches_reject(bound: str, code: str) -> None:
    with pytest.raises(QccError) as raised:
        load_text(f"qpolicy 1\nrule cache {{ {BOTH} }}\nbudget {{ {bound} }}\n", schema())
    assert [one.code for one in raised.value.diagnostics] == [code]
