"""The time of an attention over a cache alone: the runtime's `GroupQueryAttention` beside our op, by kernel and body.

    python -m benchmarks.caches.alone [--heads 9x3x64] [--earlier 2048] [--new 1] [--rounds 40] [--codes int8_int8 ...]

One thread, in turn, the processor time of that thread alone; medians, and ratios to the runtime's op on floats. Codes
and rows are drawn, nothing is hidden. Codes are spelled as names of ops have them: `int4g64fp16_int4g64fp16` keeps keys
and values as int4 in groups of 64 with scales in float16.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import native
from qcc.compiler.measure.timing import Turns, interleaved
from qcc.compiler.runtime.register import register
from qcc.ir.graph.ops import Array
from qcc.ir.kernel.cached_op import CachedOp, parse_cached
from qcc.ir.onnx.attention.cached.body import cached_function
from qcc.ir.onnx.file.domain import DOMAIN, VERSION

OPSET, IR_VERSION = 21, 10
CODES = ["int8_int8", "int4g64fp16_int4g64fp16", "int4_int4g32fp16", "float_float"]


def rows_of(kind: np.dtype, *shape: int) -> Array:
    """Drawn numbers of a type."""
    rng = np.random.default_rng(0)
    if kind.kind == "f":
        return np.asarray(rng.random(shape) / 50 if kind == np.float16 else rng.standard_normal(shape), kind)
    return rng.integers(0, 100, shape).astype(kind)


def ours(op: CachedOp, earlier: int, new: int, library: Path | None) -> Callable[[], object]:
    """A run of our op, by a library or by its body."""
    feeds, sizes = dict[str, Array](), {"queries": op.heads, "keys": op.kept_heads, "values": op.kept_heads}
    for name in op.inputs:
        kind, code = op.dtype(name), op.keys if "keys" in name else op.values
        if name in sizes:
            feeds[name] = rows_of(kind, 1, new, sizes[name] * op.channels)
        elif name == "bias":
            feeds[name] = np.zeros((1, 1, new, earlier + new), kind)
        else:
            width = (
                op.channels // code.group if name.endswith("_scale") else op.channels // (2 if code.bits == 4 else 1)
            )
            feeds[name] = rows_of(kind, 1, op.kept_heads, earlier, width)
    node = helper.make_node(op.name, list(op.inputs), list(op.outputs), domain=DOMAIN)
    functions = [] if library else [ir.serde.serialize_function(cached_function(op, OPSET))]
    kinds = {name: op.dtype(name) for name in op.outputs}
    return _session(node, feeds, kinds, functions, library)


def runtimes(op: CachedOp, earlier: int, new: int) -> Callable[[], object]:
    """A run of the runtime's op on floats, or on int8 by channel."""
    kind = np.dtype(np.float32) if op.keys.is_float else np.dtype(np.int8)
    feeds: dict[str, Array] = {"q": rows_of(np.dtype(np.float32), 1, new, op.heads * op.channels)}
    feeds |= {name: rows_of(np.dtype(np.float32), 1, new, op.kept_heads * op.channels) for name in "kv"}
    feeds |= {name: rows_of(kind, 1, op.kept_heads, earlier, op.channels) for name in ("keys", "values")}
    feeds |= {"last": np.array([earlier + new - 1], np.int32), "total": np.array(earlier + new, np.int32)}
    names, more = list(feeds), dict[str, str | int]()
    if not op.keys.is_float:
        feeds |= {name: np.full(op.kept_heads * op.channels, 0.02, np.float32) for name in ("k_step", "v_step")}
        names += [""] * 5 + ["k_step", "v_step"]
        more = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    outputs = {"y": np.dtype(np.float32), "all_keys": kind, "all_values": kind}
    node = helper.make_node("GroupQueryAttention", names, list(outputs), domain="com.microsoft")
    more |= {"num_heads": op.heads, "kv_num_heads": op.kept_heads}
    node.attribute.extend(helper.make_attribute(name, value) for name, value in {**more, "scale": 1.0}.items())
    return _session(node, feeds, outputs, [], None)


def _session(
    node: onnx.NodeProto,
    feeds: dict[str, Array],
    outputs: dict[str, np.dtype],
    functions: list[onnx.FunctionProto],
    library: Path | None,
) -> Callable[[], object]:
    kinds = {name: array.dtype for name, array in feeds.items()} | outputs
    values = {
        name: helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind), None)
        for name, kind in kinds.items()
    }
    graph = helper.make_graph([node], "one", [values[name] for name in feeds], [values[name] for name in outputs])
    opsets = [helper.make_opsetid(*one) for one in (("", OPSET), (DOMAIN, VERSION), ("com.microsoft", 1))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, functions=functions)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if library is not None:
        register(options, str(library))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return partial(session.run, None, feeds)


def main() -> None:
    """Time, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", default="9x3x64")
    parser.add_argument("--codes", nargs="+", default=CODES)
    for name, usual in (("earlier", 2048), ("new", 1), ("rounds", 40)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    told = [parse_cached(f"attend_{asked.heads}_{codes}") for codes in ("float_float", "int8_int8", *asked.codes)]
    ops = [op for op in told if op is not None]
    assert len(ops) == len(told), "no such codes"
    with tempfile.TemporaryDirectory() as folder:
        library = build(ops, (native(),), Path(folder) / "attend.so")
        runs = {
            f"runtime, {kind}": runtimes(op, asked.earlier, asked.new)
            for kind, op in zip(("float", "int8"), ops[:2], strict=True)
        }
        for codes, op in zip(asked.codes, ops[2:], strict=True):
            runs[f"kernel, {codes}"] = ours(op, asked.earlier, asked.new, library)
            runs[f"body, {codes}"] = ours(op, asked.earlier, asked.new, None)
        seconds = interleaved(list(runs.values()), Turns(asked.rounds, 0.002, warm=True, own=True))
    for name, taken, ratio in zip(runs, np.median(seconds, -1), np.median(seconds / seconds[:1], -1), strict=True):
        print(f"{name:40} {taken * 1e6:9.0f} us {ratio:.3f}x", flush=True)


if __name__ == "__main__":
    main()
