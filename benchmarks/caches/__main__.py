"""Perplexity and greedy text of a language model whose caches hold codes, against the same with floats.

    python -m benchmarks.caches MODEL.onnx WINDOWS.npz CALIBRATION.npz FORMATS.txt [--texts 10]

Both archives hold ``input_ids [windows, tokens]``; masks are ones, positions count, caches begin empty. Each line of
FORMATS is what a rule says of caches, as in ``keys = int8 channel, values = int4 channel``. Whole windows are run at
once, each token attending to codes. Texts go on for 64 tokens behind the first 64 of the last windows.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.perplexity.nats import nats
from qcc.compiler.build.rewrite import sample_of, watching
from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.plan.bind import bound_subjects
from qcc.compiler.plan.cascade import resolve_others
from qcc.compiler.plan.catalog import schema
from qcc.compiler.sequence.drive import GreedyText, TokenDriver
from qcc.compiler.sequence.states import TokenModel, token_model
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import load_text
from qcc.ir.encoding.cached.stored import NOTE, of_note
from qcc.ir.graph.graph import Runner
from qcc.ir.graph.ops import Feeds
from qcc.ir.model.in_floats import InFloats
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import Context

PROMPT, STEPS = 64, 64


def feeds_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Feeds of windows of tokens, but for caches."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions}


def data_of(graph: OnnxGraph, ids: np.ndarray) -> Samples:
    """Windows as samples, one by one."""
    return load([feeds_of(one[None]) for one in ids], graph, None, 0)


def stored(graph: OnnxGraph, line: str, data: Samples, found: dict[object, object]) -> OnnxGraph:
    """A graph with its caches stored as a rule says."""
    policy = load_text(f"qpolicy 1\nrule cache {{ {line} }}\n", schema())
    report = Diagnostics()
    current = graph
    context = Context(sample=sample_of(graph, data), watch=watching(data), found=found)
    for step in bound_subjects(resolve_others(policy, graph, report), report)[0]:
        current, edits = step.action.apply(current, step.weights, context)
        for edit in edits:
            if edit.refused:
                print(f"  {edit.subject}: {edit.text}")
    report.raise_if_errors()
    return current


def runner_of(graph: OnnxGraph) -> Runner:
    """What runs a graph, fed floats."""
    caches = of_note(graph.model.metadata_props.get(NOTE, ""))
    plain = graph.runner([one.name for one in graph.inputs], [one.name for one in graph.outputs])
    return InFloats(plain, caches) if caches else plain


def losses(runner: Runner, model: TokenModel, batches: Samples) -> Iterator[float]:
    """The cross entropy of each window's tokens behind the first."""
    for feeds in batches.parts(1):
        yield float(nats(runner(feeds)[model.logits][0, :-1], feeds[model.tokens][0, 1:]).mean())


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "windows", "calibration", "formats"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--texts", type=int, default=10)
    asked = parser.parse_args()
    graph = OnnxGraph.load(asked.model)
    graph.simplify()
    windows = np.load(asked.windows)["input_ids"]
    judged, data = (data_of(graph, ids) for ids in (windows, np.load(asked.calibration)["input_ids"]))
    float_runner = runner_of(graph)
    model = token_model(graph, float_runner, next(judged.parts(1)))
    assert model is not None
    texts = list(data_of(graph, windows[-asked.texts :]).parts(1)) if asked.texts else []
    wanted = [TokenDriver(model, float_runner).greedy(feeds, PROMPT, STEPS) for feeds in texts]
    base = float(np.mean(list(losses(float_runner, model, judged))))
    print(f"float: perplexity {np.exp(base):.4f}", flush=True)
    found: dict[object, object] = {}
    for line in filter(None, map(str.strip, asked.formats.read_text(encoding="utf-8").splitlines())):
        runner = runner_of(stored(graph, line, data, found))
        assert isinstance(runner, InFloats)
        codes = [one.rows for one in runner.caches if one.rows is not None]
        share = sum(rows.row_bytes for rows in codes) / sum(4 * rows.gain.shape[1] for rows in codes)
        loss = float(np.mean(list(losses(runner, model, judged))))
        told = _texts(TokenDriver(model, runner), texts, wanted)
        print(f"{line}: {share:.4f}x, perplexity {np.exp(loss):.4f}, {np.expm1(loss - base):+.3%}{told}", flush=True)


def _texts(driver: TokenDriver, texts: list[Feeds], wanted: Sequence[GreedyText]) -> str:
    """How many texts are the same, and how near float was to another token where one is not."""
    gaps = list[float]()
    for feeds, float_text in zip(texts, wanted, strict=True):
        other = np.flatnonzero(driver.greedy(feeds, PROMPT, STEPS).tokens[0] != float_text.tokens[0])
        if other.size:
            best = np.sort(float_text.logits[0, other[0]])[-2:]
            gaps.append(float(best[1] - best[0]))
    shown = ", ".join(f"{gap:.4f}" for gap in gaps)
    return f"; texts equal {len(texts) - len(gaps)} of {len(texts)}" + (
        f", float's best two {shown} apart" if gaps else ""
    )


if __name__ == "__main__":
    main()
