"""Attentions over documents side by side: behind a mask, as exported and as one op, and document by document.

    python -m benchmarks.attention.documents [--threads N] [--model MODEL.onnx]

Prints a row a shape: four layers of nothing but attention (9 heads that share 3, 64 channels, as SmolLM2 has) behind
one mask of an input `segments`, in turns in one process, the median of 5. The documents have drawn lengths; an
instruction of 32 rows comes before them and a question of 32 behind. With `--model` a causal model of `input_ids` is
given the input and its mask, and what it computes of 2,048 drawn tokens is compared.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from benchmarks.processes.timing import machine, session
from qcc.ir.attention.find import attentions
from qcc.ir.graph.attention import Attention, OneOp
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.file.runtime import onnxruntime
from qcc.passes.attention.pattern import Blocks
from qcc.passes.contract.contract import Context

ROUNDS, SEED, LAYERS = 5, 0, 4
HEADS, SHARED, CHANNELS = 9, 3, 64
SIDES = 32
SHAPES = ((2, 512), (8, 1024), (8, 2048), (16, 2048))
MASK = """flat = Reshape (segments, minus)
 down = Unsqueeze (flat, one)
 across = Unsqueeze (flat, zero)
 own = Equal (down, across)
 common = Equal (across, none)
 most = ReduceMax <keepdims = 0> (flat)
 all = Equal (down, most)
 few = Or (own, common)
 some = Or (few, all)
 length = Shape (flat)
 count = Squeeze (length)
 places = Range (none, count, next)
 rows = Unsqueeze (places, one)
 columns = Unsqueeze (places, zero)
 before = LessOrEqual (columns, rows)
 seen = And (some, before)
 hidden = Where (seen, open, least)
"""
LAYER = """q@ = MatMul (x@, wq)
 k@ = MatMul (x@, wk)
 v@ = MatMul (x@, wv)
 qs@ = Reshape (q@, heads)
 ks@ = Reshape (k@, held)
 vs@ = Reshape (v@, held)
 qh@ = Transpose <perm = [0, 2, 1, 3]> (qs@)
 kh@ = Transpose <perm = [0, 2, 1, 3]> (ks@)
 vh@ = Transpose <perm = [0, 2, 1, 3]> (vs@)
 k5@ = Unsqueeze (kh@, two)
 ke@ = Expand (k5@, wide)
 kr@ = Reshape (ke@, merged)
 v5@ = Unsqueeze (vh@, two)
 ve@ = Expand (v5@, wide)
 vr@ = Reshape (ve@, merged)
 kt@ = Transpose <perm = [0, 1, 3, 2]> (kr@)
 s@ = MatMul (qh@, kt@)
 z@ = Mul (s@, scale)
 m@ = Add (z@, hidden)
 p@ = Softmax <axis = -1> (m@)
 y@ = MatMul (p@, vr@)
 t@ = Transpose <perm = [0, 2, 1, 3]> (y@)
 x! = Reshape (t@, all_)
"""


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path)
    given = parser.parse_args()
    print(f"# {machine()}, {given.threads} thread{'s' if given.threads > 1 else ''}\n")
    if given.model:
        _compare(given.model)
        return
    print("| documents, rows | masked | as one op | apart | apart, of one op | error |\n|" + " --- |" * 6)
    for documents, rows in SHAPES:
        print(_row(documents, rows, given.threads), flush=True)


def _segments(documents: int, rows: int) -> Array:
    """Instruction, documents of drawn lengths, question."""
    draw = np.random.default_rng(SEED)
    shares = draw.uniform(0.75, 1.25, documents)
    ends = np.round(np.cumsum(shares) / shares.sum() * (rows - 2 * SIDES)).astype(int)
    lengths = np.diff(ends, prepend=0)
    return np.repeat(np.arange(documents + 2), [SIDES, *lengths, SIDES])


def _row(documents: int, rows: int, threads: int) -> str:
    graph = _graph()
    feeds = {"x0": np.random.default_rng(SEED).standard_normal((1, rows, HEADS * CHANNELS), np.float32)}
    feeds["segments"] = _segments(documents, rows)
    found = [one for one in attentions(graph, feeds) if isinstance(one, Attention)]
    fused = graph.copy()
    for one in found:
        fused.write_attention(one, OneOp())
    apart, edits = Blocks("segments").apply(graph, [one.name for one in found], Context(sample=feeds))
    assert not any(edit.refused for edit in edits), edits
    apart.simplify()
    sessions = [_session(one, threads) for one in (graph, fused, apart)]
    times: list[list[float]] = [[] for _ in sessions]
    results = [one.run(None, feeds)[0] for one in sessions]
    for _ in range(ROUNDS):
        for one, each in zip(sessions, times, strict=True):
            start = time.perf_counter()
            one.run(None, feeds)
            each.append(time.perf_counter() - start)
    base, one_op, ours = (float(np.median(each)) for each in times)
    error = np.abs(results[2] - results[0]).max() / np.abs(results[0]).max()
    shares = f"{one_op / base:.2f}x | {ours / base:.2f}x | {ours / one_op:.2f}x"
    return f"| {documents}, {rows} | {1e3 * base:,.0f} ms | {shares} | {error:.1e} |"


def _graph() -> OnnxGraph:
    layers = "".join(LAYER.replace("@", str(at)).replace("!", str(at + 1)) for at in range(LAYERS))
    held = f"float[B, S, {HEADS * CHANNELS}]"
    head = f"g ({held} x0, int64[S] segments) => ({held} x{LAYERS})"
    text = f'<ir_version: 10, opset_import: ["" : 20]> {head} {{ {MASK} {layers} }}'
    model = onnx.parser.parse_model(text)
    draw = np.random.default_rng(SEED)
    wide, width = HEADS * CHANNELS, SHARED * CHANNELS
    floats = {"wq": (wide, wide), "wk": (wide, width), "wv": (wide, width)}
    arrays: dict[str, Array] = {name: draw.standard_normal(shape) / wide**0.5 for name, shape in floats.items()}
    arrays |= {"scale": np.array(CHANNELS**-0.5), "open": np.array(0.0), "least": np.array(-3e38)}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    whole = {"minus": [-1], "one": [1], "zero": [0], "two": [2], "heads": [0, 0, HEADS, CHANNELS]}
    whole |= {"held": [0, 0, SHARED, CHANNELS], "wide": [1, 1, HEADS // SHARED, 1, 1], "all_": [0, 0, wide]}
    arrays |= {name: np.array(row) for name, row in whole.items()} | {"merged": np.array([0, HEADS, -1, CHANNELS])}
    arrays |= {"none": np.array(0), "next": np.array(1)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()
    return graph


def _session(graph: OnnxGraph, threads: int) -> "onnxruntime.InferenceSession":
    return session(ir.serde.serialize_model(graph.model).SerializeToString(), threads)


def _compare(path: Path, documents: int = 8, rows: int = 2048) -> None:
    """A causal model with the mask, and document by document."""
    graph = OnnxGraph.load(path)
    graph.simplify()
    draw = np.random.default_rng(SEED)
    feeds = {"input_ids": draw.integers(0, 1000, (1, rows))}
    found = [one for one in attentions(graph, {"input_ids": feeds["input_ids"][:, :32]}) if isinstance(one, Attention)]
    _mask(graph, {masking.value for one in found for masking in one.masking})
    feeds["segments"] = _segments(documents, rows)
    few = {"input_ids": feeds["input_ids"][:, :40], "segments": _segments(2, 104)[:40]}
    apart, edits = Blocks("segments").apply(graph, [one.name for one in found], Context(sample=few))
    apart.simplify()
    refused = [edit.text for edit in edits if edit.refused]
    print(f"{len(edits)} attentions, {len(refused)} refused {refused[:1]}")
    results, times = [], []
    for one in (graph, apart):
        run = one.runner(list(feeds), [one.outputs[0].name])
        start = time.perf_counter()
        results.append(run(feeds)[one.outputs[0].name])
        times.append(time.perf_counter() - start)
    error = np.abs(results[1] - results[0]).max() / np.abs(results[0]).max()
    print(f"{documents} documents, {rows} rows: error {error:.1e} of the largest, time {times[1] / times[0]:.2f}x")


def _mask(graph: OnnxGraph, names: set[str]) -> None:
    """Let masks hide other documents, too, by an input of their own."""
    (name,) = names
    inner, old = graph.model.graph, graph.value(name)
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (int64[seq] segments) => (bool seen) {{ {MASK} }}'
    body = ir.serde.deserialize_model(onnx.parser.parse_model(text)).graph
    values = ir.convenience.create_value_mapping(inner)
    arrays: dict[str, Array] = {"minus": np.array([-1]), "one": np.array([1]), "zero": np.array([0])}
    arrays |= {"none": np.array(0), "next": np.array(1), "open": np.array(0, np.float32)}
    arrays["least"] = np.array(-3e38, np.float32)
    fed = ir.Value(name="segments", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([_rows(graph)]))
    inner.inputs.append(fed)
    made = {"segments": fed}
    for key, array in arrays.items():
        constant = ir.Value(name=f"mask.{key}", const_value=ir.tensor(array, name=f"mask.{key}"))
        inner.initializers[constant.name or ""] = constant
        made[key] = constant
    for node in body:
        new = ir.Node(
            "", node.op_type, [made[value.name or ""] for value in node.inputs if value], node.attributes.values()
        )
        for value, other in zip(node.outputs, new.outputs, strict=True):
            other.name = f"mask.{value.name}"
            made[value.name or ""] = other
        inner.append(new)
    flags = old.dtype == "bool"
    both = ir.Node("", "And" if flags else "Min", [values[name], made["seen" if flags else "hidden"]])
    inner.append(both)
    both.outputs[0].name = "mask.both"
    both.outputs[0].type = values[name].type
    for node, at in list(values[name].uses()):
        if node is not both:
            node.replace_input_with(at, both.outputs[0])
    inner.sort()
    graph._forget()


def _rows(graph: OnnxGraph) -> str:
    shape = graph.inputs[0].shape or ()
    return str(shape[-1])


if __name__ == "__main__":
    main()
