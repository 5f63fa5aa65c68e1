"""Small ONNX models, written as text, for the tests of the ONNX adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.checker
import onnx.parser
import onnxruntime
from onnx import numpy_helper

from qcc.ir.encoding import fit
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.encoded import Encoded
from qcc.ir.encoding.tables.lookups import Interactions, Lookups
from qcc.ir.graph.form import Form
from qcc.ir.graph.ops import Array
from qcc.ir.onnx.adapter import OnnxGraph

Feeds = Mapping[str, Array]


def random(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    """Numbers of about 1."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def parse(
    body: str, weights: Mapping[str, Array] | None = None, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    """A model from its graph as text, with weights added as initialisers."""
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}, "com.microsoft": 1]>'
    model = onnx.parser.parse_model(header + body)
    for name, array in (weights or {}).items():
        tensor = numpy_helper.from_array(array, name)
        model.graph.initializer.append(tensor)
    return model


@dataclass(frozen=True)
class Case:
    """A model as text, its weights, and something to feed it."""

    body: str
    weights: Mapping[str, Array]
    feeds: Feeds
    opset: int = 17
    ir_version: int = 8
    layers: Sequence[str] = field(default=("w",))

    def proto(self) -> onnx.ModelProto:
        """The model."""
        return parse(self.body, self.weights, self.opset, self.ir_version)

    def save(self, folder: Path) -> Path:
        """Write the model."""
        path = folder / "model.onnx"
        onnx.save(self.proto(), path)
        return path


X, X3 = random(5, 64, seed=1), random(2, 5, 64, seed=1)
IDS = np.array([[1, 0, 6], [2, 2, -1]])
TABLE = random(7, 64)
MATMUL = "g (float[N,64] x) => (float[N,M] y) { y = MatMul(x, w) }"
GATHER = "g (int64[N,M] i) => (float[N,M,64] y) { y = Gather(w, i) }"


def _conv(attributes: str, w: Array, *sizes: int) -> Case:
    text = "x".join(["3", *map(str, sizes)]).replace("x", ",")
    unknown = ",".join("ABCDE"[: len(sizes) + 1])
    body = f"g (float[{text}] x) => (float[{unknown}] y) {{ y = {attributes} (x, w) }}"
    return Case(body, {"w": w}, {"x": random(3, *sizes, seed=1)})


def _gemm(attributes: str, w: Array, x: Array, bias: bool = True) -> Case:
    inputs = "x, w, b" if bias else "x, w"
    body = f"g (float[N,K] x) => (float[A,B] y) {{ y = Gemm <{attributes}> ({inputs}) }}"
    return Case(body, {"w": w} | ({"b": random(32, seed=2)} if bias else {}), {"x": x})


def _chain(nodes: str, w: Array) -> Case:
    return Case(f"g (float[N,64] x) => (float[N,M] y) {{ {nodes} y = MatMul(x, v) }}", {"w": w, "s": SHAPE}, {"x": X})


SHAPE = np.array([64, 32])

LINEAR = {
    "matmul": Case(MATMUL, {"w": random(64, 32)}, {"x": X}),
    "matmul_ragged": Case(MATMUL, {"w": random(64, 21)}, {"x": X}),
    "matmul_3d": Case(MATMUL.replace("[N,", "[A,N,"), {"w": random(64, 32)}, {"x": X3}),
    "matmul_vector": Case("g (float[64] x) => (float[32] y) { y = MatMul(x, w) }", {"w": random(64, 32)}, {"x": X[0]}),
    "matmul_left": Case("g (float[64,N] x) => (float[M,N] y) { y = MatMul(w, x) }", {"w": random(32, 64)}, {"x": X.T}),
    "matmul_experts": Case(
        "g (float[3,N,64] x) => (float[3,N,32] y) { y = MatMul(x, w) }", {"w": random(3, 64, 32)}, {"x": X3[[0, 1, 0]]}
    ),
    "gemm": _gemm("alpha=1.0", random(64, 32), X),
    "gemm_no_bias": _gemm("alpha=1.0", random(64, 32), X, bias=False),
    "gemm_trans_b": _gemm("transB=1", random(32, 64), X),
    "gemm_trans_a": _gemm("transA=1", random(64, 32), X.T.copy()),
    "gemm_scaled": _gemm("alpha=0.5, beta=2.0, transB=1", random(32, 64), X),
    "gemm_left": Case(
        "g (float[64,N] x) => (float[M,N] y) { y = Gemm <transA=1> (w, x) }", {"w": random(64, 32)}, {"x": X.T.copy()}
    ),
}
CONV = {
    "conv1d": _conv("Conv", random(8, 3, 5), 3, 16),
    "conv2d": _conv("Conv <pads=[1,1,1,1], strides=[2,2]>", random(8, 3, 3, 3), 3, 9, 9),
    "conv2d_grouped": _conv("Conv <group=2>", random(6, 2, 3, 3), 4, 9, 9),
    "conv2d_depthwise": _conv("Conv <group=4>", random(4, 1, 3, 3), 4, 9, 9),
    "conv2d_pointwise": _conv("Conv", random(8, 32, 1, 1), 32, 4, 4),
    "conv3d": _conv("Conv", random(4, 2, 2, 3, 2), 2, 5, 5, 5),
    "conv_transpose": _conv("ConvTranspose <strides=[2,2]>", random(3, 8, 2, 2), 3, 5, 5),
    "conv_transpose_grouped": _conv("ConvTranspose <group=2>", random(4, 3, 2, 2), 4, 5, 5),
}
EMBEDDING = {
    "gather_0d": Case("g (int64 i) => (float[64] y) { y = Gather(w, i) }", {"w": TABLE}, {"i": np.array(3)}),
    "gather_1d": Case(GATHER.replace("N,M", "N"), {"w": TABLE}, {"i": IDS[0]}),
    "gather_2d": Case(GATHER, {"w": TABLE}, {"i": IDS}),
    "gather_3d": Case(GATHER.replace("N,M", "A,N,M"), {"w": TABLE}, {"i": IDS[None]}),
    "gather_int32": Case(GATHER.replace("int64", "int32"), {"w": TABLE}, {"i": IDS.astype(np.int32)}),
    "gather_none": Case(GATHER, {"w": TABLE}, {"i": IDS[:0]}),
    "gather_ragged": Case(GATHER.replace("64]", "61]"), {"w": TABLE[:, :61]}, {"i": IDS}),
    "tied_transpose": Case(
        """g (int64[N,M] i) => (float[N,M,V] y, float[N,M,64] e) {
            e = Gather(w, i)
            t = Transpose <perm=[1,0]> (w)
            y = MatMul(e, t) }""",
        {"w": TABLE},
        {"i": IDS},
        layers=("w", "w#2"),
    ),
    "tied_gemm": Case(
        """g (int64[N] i) => (float[N,V] y, float[N,64] e) {
            e = Gather(w, i)
            y = Gemm <transB=1> (e, w, b) }""",
        {"w": TABLE, "b": random(7)},
        {"i": IDS[0]},
        layers=("w", "w#2"),
    ),
    "tied_stored_transposed": Case(
        """g (int64[N] i) => (float[N,V] y, float[N,64] e) {
            t = Transpose (w)
            e = Gather(t, i)
            y = MatMul(e, w) }""",
        {"w": TABLE.T},
        {"i": IDS[0]},
        layers=("w", "w#2"),
    ),
    "table_is_output": Case(
        "g (int64[N] i) => (float[N,64] y, float[7,64] w) { y = Gather(w, i) }", {"w": TABLE}, {"i": IDS[0]}
    ),
    "table_in_subgraph": Case(
        """g (int64[N] i, bool c) => (float[N,64] y, float[7,64] z) {
            z = If (c) <then_branch = t () => (float[7,64] a) { a = Identity(w) },
                        else_branch = e () => (float[7,64] b) { b = Neg(w) }>
            y = Gather(w, i) }""",
        {"w": TABLE},
        {"i": IDS[0], "c": np.array(False)},
    ),
}
CHAINS = {
    "identity": _chain("v = Identity(w)", random(64, 32)),
    "transpose": _chain("v = Transpose(w)", random(32, 64)),
    "reshape": _chain("v = Reshape(w, s)", random(8, 8, 32)),
    "transpose_identity": _chain("u = Transpose <perm=[1,0]> (w) v = Identity(u)", random(32, 64)),
    "transpose_twice": _chain("u = Transpose(w) v = Transpose(u)", random(64, 32)),
    "reshape_transpose": _chain("u = Reshape(w, s) t = Transpose(u) v = Transpose(t)", random(8, 256)),
    "cast_fp16": _chain("v = Cast <to=1> (w)", random(64, 32, dtype=np.float16)),
    "cast_bf16": _chain("u = Cast <to=1> (w) v = Transpose(u)", random(32, 64, dtype=ml_dtypes.bfloat16)),
    "cast_double": _chain("u = Transpose(w) v = Cast <to=1> (u)", random(32, 64, dtype=np.float64)),
}
OTHER = {
    "shared": Case(
        "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }",
        {"w": random(64, 64) / 8},
        {"x": X},
        layers=("w", "w#2"),
    ),
    "with_itself": Case(
        "g (float[N,64] x) => (float[N,64] y) { h = MatMul(w, w) y = MatMul(x, h) }",
        {"w": random(64, 64) / 8},
        {"x": X},
    ),
    "also_added": Case(
        "g (float[64,64] x) => (float[64,64] y) { h = MatMul(x, w) y = Add(h, w) }",
        {"w": random(64, 64)},
        {"x": random(64, 64, seed=1)},
    ),
    "also_output": Case(
        "g (float[N,64] x) => (float[N,32] y, float[64,32] w) { y = MatMul(x, w) }", {"w": random(64, 32)}, {"x": X}
    ),
    "output_of_chain": Case(
        "g (float[N,64] x) => (float[N,32] y, float[64,32] v) { v = Transpose(w) y = MatMul(x, v) }",
        {"w": random(32, 64)},
        {"x": X},
    ),
    "in_if": Case(
        """g (float[N,64] x, bool c) => (float[N,32] y, float[64,32] z) {
            y = MatMul(x, w)
            z = If (c) <then_branch = t () => (float[64,32] a) { a = Neg(w) },
                        else_branch = e () => (float[64,32] b) { b = Identity(w) }> }""",
        {"w": random(64, 32)},
        {"x": X, "c": np.array(True)},
    ),
    "in_loop_first": Case(
        """g (float[5,64] x, float[5,32] start) => (float[5,32] y, float[5,32] z) {
            z = Loop (n, yes, start) <body = l (int64 k, bool c, float[5,32] h) => (bool d, float[5,32] i) {
                d = Identity(c)
                p = MatMul(x, w)
                i = Add(h, p) }>
            y = MatMul(x, w) }""",
        {"w": random(64, 32), "n": np.array(3), "yes": np.array(True)},
        {"x": X, "start": random(5, 32)},
        layers=("node", "node_1"),
    ),
    "input_too": Case(
        "g (float[N,64] x, float[64,32] w) => (float[N,32] y) { y = MatMul(x, w) }",
        {"w": random(64, 32)},
        {"x": X},
        opset=9,
        ir_version=3,
    ),
    "fp16": Case(
        "g (float16[N,64] x) => (float16[N,32] y) { y = MatMul(x, w) }",
        {"w": random(64, 32, dtype=np.float16)},
        {"x": X.astype(np.float16)},
    ),
    "double": Case(
        "g (double[N,64] x) => (double[N,32] y) { y = MatMul(x, w) }",
        {"w": random(64, 32, dtype=np.float64)},
        {"x": X.astype(np.float64)},
    ),
    "fp16_embedding": Case(
        "g (int64[N] i) => (float16[N,64] y) { y = Gather(w, i) }",
        {"w": TABLE.astype(np.float16)},
        {"i": IDS[0]},
    ),
    "cast_embedding": Case(
        "g (int64[N] i) => (float[N,64] y) { v = Cast <to=1> (w) y = Gather(v, i) }",
        {"w": TABLE.astype(np.float16)},
        {"i": IDS[0]},
    ),
}
CASES = LINEAR | CONV | EMBEDDING | CHAINS | OTHER


def loaded(case: Case, folder: Path) -> OnnxGraph:
    """A case as passes see it."""
    graph = OnnxGraph.load(case.save(folder))
    graph.simplify()
    return graph


@dataclass(frozen=True)
class Emitted:
    """A model with its weight encoded, saved, and what it must compute: the original with the decoded weight."""

    path: Path
    graph: OnnxGraph
    expected: dict[str, Array]
    stored: Sequence[onnx.TensorProto]
    shape: tuple[int, int]
    encoding: Encoding


def emit(case: Case, encoding: Encoding, form: Form, folder: Path) -> Emitted:
    """Encode the first weight of a model in a form and save it."""
    graph = loaded(case, folder)
    weight = graph.weights()[0]
    encoded = stored_in(graph.matrix(weight), encoding)
    decoded = graph.copy()
    constant = decoded.constant(weight.constant)
    assert constant is not None
    array = weight.view.array(encoded.decode()).reshape(constant.shape).astype(constant.dtype)
    decoded.replace_constant(weight.constant, np.ascontiguousarray(array))
    names = [value.name for value in decoded.outputs]
    expected = decoded.runner([value.name for value in decoded.inputs], names)(case.feeds)
    graph.encode(weight, encoded, form)
    path = folder / "encoded.onnx"
    graph.save(path)
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    stored = [tensor for tensor in proto.graph.initializer if tensor.name.startswith(f"{weight.name}.")]
    return Emitted(path, graph, expected, stored, weight.shape, encoded.encoding)


def stored_in(matrix: Array, encoding: Encoding) -> Encoded:
    """A matrix encoded to nearest, with something drawn for all that its encoding goes by."""
    lookups = {source: drawn_lookups(source, len(matrix)) for source in encoding.sources}
    return fit.encode(matrix, encoding, lookups=lookups)


def drawn_lookups(source: str, rows: int) -> Lookups:
    """Some rows of a table, looked up with some of another."""
    random = np.random.default_rng(rows)
    left, right = random.integers(0, rows, 2 * rows), random.integers(0, 9, 2 * rows)
    found = Interactions(source, ("left", "right"), (left, right), random.random(2 * rows))
    return Lookups(np.bincount(left, minlength=rows), found)


def run(path: Path, feeds: Feeds, optimized: Path | None = None) -> dict[str, Array]:
    """Run a file in plain ONNX Runtime; 4-bit products in float32."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
