"""Causal attention with blocks of scores left out, beside all of it, and what that loses of a language model.

    python -m benchmarks.attention.block_sparse [--threads N] [--alone] [--told ROWS]
    python -m benchmarks.attention.block_sparse --model MODEL.onnx --data FILE.npz [--windows N] [--told ROWS]

The first prints a row a number of rows: one attention (9 heads that share 3, 64 channels) of drawn queries and keys,
with a share of the weight such that about a quarter of the blocks that are not hidden meet, beside what the exporter
writes, the standard's `Attention`, the runtime's `GroupQueryAttention`, and our kernel of what meets; in turns in one
process, the median of 5. With `--alone` queries, keys and values are fed, so that no projection is in the time.
`--told` rows of each block tell where its weight lies, in place of means.

The second compares a causal model of `input_ids` with and without, over windows of text: perplexity at shares of the
weight, and layer by layer the weight that as many blocks hold with keys sorted and as they come.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from benchmarks.perplexity.nats import nats, perplexity_of
from benchmarks.processes.timing import machine, session
from qcc.codegen.target.find import targets
from qcc.ir.attention.find import attentions
from qcc.ir.graph.attention import Attention, BlockSparseScores, OneOp
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.runtime import onnxruntime

ROUNDS, SEED = 5, 0
HEADS, SHARED, CHANNELS = 9, 3, 64
BLOCK, SEGMENT, SHARE = 128, 256, 0.25
MASSES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
MORE = (0.4, 0.5, 0.6, 0.7)  # of drawn numbers blocks hold much the same, as rows tell it
BODY = """length = Shape <start = 1, end = 2> (x)
 count = Squeeze (length)
 places = Range (none, count, next)
 down = Unsqueeze (places, one)
 across = Unsqueeze (places, zero)
 seen = LessOrEqual (across, down)
 hidden = Where (seen, open, least)
 q = MatMul (x, wq)
 k = MatMul (x, wk)
 v = MatMul (x, wv)
 qs = Reshape (q, heads)
 ks = Reshape (k, held)
 vs = Reshape (v, held)
 qh = Transpose <perm = [0, 2, 1, 3]> (qs)
 kh = Transpose <perm = [0, 2, 1, 3]> (ks)
 vh = Transpose <perm = [0, 2, 1, 3]> (vs)
 k5 = Unsqueeze (kh, two)
 ke = Expand (k5, wide)
 kr = Reshape (ke, merged)
 v5 = Unsqueeze (vh, two)
 ve = Expand (v5, wide)
 vr = Reshape (ve, merged)
 kt = Transpose <perm = [0, 1, 3, 2]> (kr)
 s = MatMul (qh, kt)
 z = Mul (s, scale)
 m = Add (z, hidden)
 p = Softmax <axis = -1> (m)
 made = MatMul (p, vr)
 t = Transpose <perm = [0, 2, 1, 3]> (made)
 y = Reshape (t, all_)
"""
GROUPED = f"""q = MatMul (x, wq)
 k = MatMul (x, wk)
 v = MatMul (x, wv)
 y, pk, pv = com.microsoft.GroupQueryAttention <num_heads = {HEADS}, kv_num_heads = {SHARED}, scale = 0.125>
  (q, k, v, , , lengths, total)
"""


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--told", type=int, default=0)
    given = parser.parse_args()
    print(f"# {machine()}, {given.threads} thread{'s' if given.threads > 1 else ''}\n")
    if given.model:
        _compare(given.model, np.load(given.data)["input_ids"][: given.windows], given.told)
        return
    heads = "rows", "blocks", "exported", "`Attention`", "`GroupQueryAttention`", "blocks left out", "by a kernel"
    print(f"| {' | '.join(heads)} |\n|" + " --- |" * len(heads))
    for rows in (2048, 4096):
        print(_row(rows, given.threads, given.alone, given.told), flush=True)


def _row(rows: int, threads: int, alone: bool, told: int) -> str:
    draw = np.random.default_rng(SEED)
    widths = {"q": HEADS, "k": SHARED, "v": SHARED} if alone else {"x": HEADS}
    feeds = {name: draw.standard_normal((1, rows, heads * CHANNELS), np.float32) for name, heads in widths.items()}
    exported, grouped = exported_graph(BODY, rows, alone), exported_graph(GROUPED, rows, alone)
    (one,) = attentions(exported, {name: array[:, :32] for name, array in feeds.items()})
    assert isinstance(one, Attention), one
    fused = exported.copy()
    fused.write_attention(one, OneOp())
    tried = [(*_sparse(exported, one, mass, feeds, told), mass) for mass in (*MASSES, *(MORE if told else ()))]
    share, sparse, _ = min(tried, key=lambda found: abs(found[0] - SHARE))
    kernel = sparse.copy()
    library = _library(kernel)
    sessions = [_session(graph, threads) for graph in (exported, fused, grouped, sparse)]
    sessions += [_session(kernel, threads, library)]
    times: list[list[float]] = [[] for _ in sessions]
    for turn in range(ROUNDS + 1):
        for one, each in zip(sessions, times, strict=True):
            start = time.perf_counter()
            one.run(["y"], feeds)
            each += [time.perf_counter() - start] if turn else []
    base, *others = (float(np.median(each)) for each in times)
    shares = " | ".join(f"{other / base:.2f}x" for other in others)
    return f"| {rows:,} | {100 * share:.0f} % | {1e3 * base:,.0f} ms | {shares} |"


def _sparse(
    graph: OnnxGraph, one: Attention, mass: float, feeds: dict[str, Array], told: int
) -> tuple[float, OnnxGraph]:
    """With a share of the weight, and the share of blocks that meet."""
    copy = graph.copy()
    copy.write_attention(one, BlockSparseScores(BLOCK, SEGMENT, mass, rows=told))
    copy.simplify()
    kept = next(op.inputs[0] for op in copy.ops() if op.function in ("nonzero", "NonZero"))
    pairs = copy.runner(list(feeds), [kept])(feeds)[kept]
    blocks = -(-next(iter(feeds.values())).shape[1] // BLOCK)
    own = blocks * (SEGMENT // BLOCK + 1) / 2
    return float(pairs.sum() / HEADS + own) / (blocks * (blocks + 1) / 2), copy


def exported_graph(body: str, rows: int, alone: bool) -> OnnxGraph:
    """An attention of drawn weights, of `x`, or alone of queries, keys and values."""
    held, shared = (f"float[1, S, {heads * CHANNELS}]" for heads in (HEADS, SHARED))
    fed = f"{held} x"
    if alone:
        fed = f"{held} q, {shared} k, {shared} v"
        body = "".join(line for line in body.splitlines(True) if "MatMul (x, w" not in line).replace("(x)", "(q)")
    text = f'<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]> g ({fed}) => ({held} y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    draw, wide, width = np.random.default_rng(SEED), HEADS * CHANNELS, SHARED * CHANNELS
    floats = {"wq": (wide, wide), "wk": (wide, width), "wv": (wide, width)}
    arrays: dict[str, Array] = {name: draw.standard_normal(shape) / wide**0.5 for name, shape in floats.items()}
    arrays |= {"scale": np.array(CHANNELS**-0.5), "open": np.array(0.0), "least": np.array(-3e38)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    whole = {"one": [1], "zero": [0], "two": [2], "heads": [0, 0, HEADS, CHANNELS], "merged": [0, HEADS, -1, CHANNELS]}
    whole |= {"held": [0, 0, SHARED, CHANNELS], "wide": [1, 1, HEADS // SHARED, 1, 1], "all_": [0, 0, wide]}
    arrays |= {name: np.array(row) for name, row in whole.items()} | {"none": np.array(0), "next": np.array(1)}
    arrays |= {"lengths": np.array([rows - 1], np.int32), "total": np.array(rows, np.int32)}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used
    )
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()
    return graph


def _library(graph: OnnxGraph) -> Path:
    """Let a graph call the kernel; the library."""
    target = targets()["cpu"]
    native = target.native().name
    ops = graph.chain(lambda op: target.serves(op, (native,), "exact"))
    path = Path(tempfile.mkdtemp()) / "attend.so"
    target.build(ops, (native,), path, "exact")
    return path


def _session(graph: OnnxGraph, threads: int, library: Path | None = None) -> "onnxruntime.InferenceSession":
    return session(ir.serde.serialize_model(graph.model).SerializeToString(), threads, library)


def _compare(path: Path, windows: Array, told: int, masses: tuple[float, ...] = (0.9, 0.7, 0.5)) -> None:
    graph = OnnxGraph.load(path)
    graph.simplify()
    found = [one for one in attentions(graph, {"input_ids": windows[:1, :32]}) if isinstance(one, Attention)]
    _layers(graph, found, windows[:1])
    base = _perplexity(graph, windows)
    print(f"\n| weight kept | perplexity | of all |\n| --- | --- | --- |\n| all | {base:.3f} | |", flush=True)
    for mass in masses:
        copy = graph.copy()
        for one in found:
            copy.write_attention(one, BlockSparseScores(BLOCK, SEGMENT, mass, rows=told))
        copy.simplify()
        mine = _perplexity(copy, windows)
        print(f"| {100 * mass:.0f} % | {mine:.3f} | {100 * (mine / base - 1):+.2f} % |", flush=True)


def _perplexity(graph: OnnxGraph, windows: Array) -> float:
    name = graph.outputs[0].name
    run, losses = graph.runner(["input_ids"], [name]), []
    for window in windows:
        losses.append(nats(run({"input_ids": window[None]})[name][0, :-1], window[1:]))
    return perplexity_of(losses)


def _layers(graph: OnnxGraph, found: list[Attention], window: Array, mass: float = 0.9) -> None:
    """The weight that blocks of segments that are over hold, by the layer."""
    names = {op.name: op.inputs for op in graph.ops()}
    reads = [[names[op][at] for op, at in one.reads] for one in found]
    values = graph.runner(["input_ids"], [name for pair in reads for name in pair])({"input_ids": window})
    print("| layer | blocks met | weight that they hold, keys sorted | as they come |\n| --- | --- | --- | --- |")
    worse = 0
    for at, (queries, keys) in enumerate(reads):
        q, k = values[queries][0], values[keys][0]
        held = [_held(q[head], k[head] if k.shape[-1] == q.shape[-1] else k[head].T, mass) for head in range(len(q))]
        met, mine, plain = np.mean(held, 0)
        worse += mine <= plain
        print(f"| {at} | {100 * met:.0f} % | {100 * mine:.2f} % | {100 * plain:.2f} % |", flush=True)
    print(f"{worse} of {len(reads)} layers hold less with keys sorted")


def _held(q: Array, k: Array, mass: float) -> tuple[float, float, float]:
    """Of one head: the share of blocks that meet, and the weight they hold with keys sorted and as they come."""
    rows = len(q)
    scores = np.where(np.tri(rows, dtype=bool), q @ k.T, -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    last = weights[-BLOCK:].mean(0).reshape(-1, SEGMENT)
    order = (np.argsort(-last, axis=1, kind="stable") + np.arange(0, rows, SEGMENT)[:, None]).reshape(-1)
    blocks = rows // BLOCK
    parts = np.arange(blocks) // (SEGMENT // BLOCK)
    totals, met = np.zeros(2), 0
    chosen: list[list[int]] = []
    for which, places in enumerate((order, np.arange(rows))):
        held = weights[:, places].reshape(blocks, BLOCK, blocks, BLOCK).sum((1, 3)) / BLOCK
        means = q.reshape(blocks, BLOCK, -1).mean(1) @ k[places].reshape(blocks, BLOCK, -1).mean(1).T
        for at in range(blocks):
            known, over = parts <= parts[at], parts < parts[at]
            shares = np.exp(np.where(known, means[at] - means[at][known].max(), -np.inf))
            shares /= shares.sum()
            forced = known & ((parts == parts[at]) | (np.arange(blocks) == 0))
            ranked = np.argsort(-(shares + 2 * forced), kind="stable")
            if which == 0:
                before = np.cumsum(shares[ranked]) - shares[ranked]
                chosen.append([int(one) for one in ranked[before < mass] if over[one]] or [0] * bool(over.any()))
                met += len(chosen[-1])
            kept = [one for one in ranked if over[one]][: len(chosen[at])]
            totals[which] += held[at, kept].sum() + held[at, parts == parts[at]].sum()
    own = blocks * (SEGMENT // BLOCK + 1) / 2
    return (met + own) / (blocks * (blocks + 1) / 2), float(totals[0] / blocks), float(totals[1] / blocks)


if __name__ == "__main__":
    main()
