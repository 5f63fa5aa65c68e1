"""Attention over rows that are all given: the kernel against float64, the body, and who writes a library of it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import qcc
from qcc.codegen.cpu.attend.template import ATTENDS_DENSE
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.serves import serves
from qcc.ir.kernel.dense_op import DenseOp, parse_dense
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.attention.dense import dense_function
from qcc.ir.onnx.file.domain import DOMAIN, VERSION

pytest.importorskip("tvm")
EXACT = 5e-6  # of the largest value: float32, in another order of sums
HERE = [name for name in ("avx2", "avx512-vnni") if not PROCESSORS[name].obstacle]
OPS = (
    DenseOp(12, 12, 32, masked=True),
    DenseOp(9, 3, 64, masked=True),
    DenseOp(4, 4, 48, causal=True),
    DenseOp(2, 1, 16, masked=True, causal=True),
    DenseOp(3, 3, 80),
)
ROWS = [(1, 32, 32), (2, 5, 7), (3, 40, 33), (1, 16, 300), (2, 129, 129), (2, 70, 20)]  # samples, rows, keys
FEW = [(1, 1, 1), (2, 1, 16), (2, 3, 257), (1, 2, 15)]
MASKS = ("columns", "scores", "heads", "spread", "flags", "one")
LIMITS = st.just(3), st.sampled_from([3, 80]), st.just(150)
LOWEST = float(np.finfo(np.float32).min)
Arrays = dict[str, np.ndarray]


def drawn(op: DenseOp, samples: int, rows: int, columns: int, mask: str = "columns", seed: int = 0) -> Arrays:
    """Normal numbers; a mask hides some by numbers that exporters take."""
    rng = np.random.default_rng(seed)
    found: Arrays = {"queries": rng.standard_normal((samples, rows, op.heads * op.channels), np.float32)}
    for name in ("keys", "values"):
        found[name] = rng.standard_normal((samples, columns, op.kept_heads * op.channels), np.float32)
    if not op.masked:
        return found
    shapes = {"columns": (samples, 1, 1, columns), "heads": (1, op.heads, rows, columns), "one": (rows, 1)}
    shape = shapes.get(mask, (samples, 1, 1 if mask == "spread" else rows, columns))
    added = rng.standard_normal(shape, np.float32)
    hidden = rng.random(shape) < 0.3
    hidden[..., 0] = mask == "one"
    added = np.where(hidden, np.float32(rng.choice([-1e38, LOWEST, -np.inf])), added)
    if mask == "spread":
        added = np.ascontiguousarray(np.broadcast_to(added, (samples, 1, rows, columns)))
    found["mask"] = ~hidden if mask == "flags" else added if mask != "one" else rng.standard_normal(shape, np.float32)
    return found


def wanted(op: DenseOp, fed: Arrays) -> np.ndarray:
    """By a softmax of all scores in float64."""
    samples, rows, width = fed["queries"].shape
    q, k, v = (
        fed[name].astype(np.float64).reshape(samples, -1, heads, op.channels).transpose(0, 2, 1, 3)
        for name, heads in (("queries", op.heads), ("keys", op.kept_heads), ("values", op.kept_heads))
    )
    k, v = (np.repeat(one, op.heads // op.kept_heads, 1) for one in (k, v))
    scores = q @ k.swapaxes(-1, -2) * op.channels**-0.5
    if op.masked:
        mask = fed["mask"]
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if op.causal:
        scores = np.where(np.arange(k.shape[2]) > np.arange(rows)[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.asarray((weights @ v).transpose(0, 2, 1, 3).reshape(samples, rows, width))


def session(op: DenseOp, library: Path | None, flags: bool = False, threads: int = 1) -> onnxruntime.InferenceSession:
    """Of one node, by a library or by the op's body."""
    kinds = {"mask": onnx.TensorProto.BOOL if flags else onnx.TensorProto.FLOAT}
    ranks = {"mask": None} if library else {"mask": ["a", "b", "c", "d"]}
    values = [
        helper.make_tensor_value_info(one, kinds.get(one, onnx.TensorProto.FLOAT), ranks.get(one))
        for one in (*op.inputs, *op.outputs)
    ]
    node = helper.make_node(op.name, list(op.inputs), list(op.outputs), domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(key, number) for key, number in op.attributes.items())
    graph = helper.make_graph([node], "one", values[:-1], values[-1:])
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, VERSION)]
    functions = [] if library else [ir.serde.serialize_function(dense_function(op, 23))]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if library:
        register(options, str(library))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11, functions=functions)
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dense")
    return {name: build(OPS, (PROCESSORS[name],), folder / f"{name}.so") for name in HERE}


def cases(op: DenseOp) -> Iterator[tuple[Arrays, bool]]:
    for seed, sizes in enumerate(ROWS + FEW):
        for mask in MASKS if op.masked else MASKS[:1]:
            yield drawn(op, *sizes, mask, seed), mask == "flags"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("processor", HERE)
def test_the_kernel_is_a_softmax_of_all_scores(libraries: dict[str, Path], processor: str, op: DenseOp) -> None:
    library = libraries[processor]
    assert serves(str(library), [op]) == {op}
    own = {(flags, count): session(op, library, flags, count) for flags in (False, op.masked) for count in (1, 3)}
    for at, (fed, flags) in enumerate(cases(op)):
        (found,) = own[flags, 1 + at % 2 * 2].run(None, fed)
        expected = wanted(op, fed)
        assert np.abs(found - expected).max() <= EXACT * np.abs(expected).max(), (at, fed["queries"].shape)


@pytest.mark.parametrize("op", [OPS[0], OPS[2]], ids=lambda op: op.name)
def test_the_body_computes_what_the_kernel_does(libraries: dict[str, Path], op: DenseOp) -> None:
    fed = drawn(op, 2, 37, 21 if op.masked else 37)
    (found,), (made,) = (session(op, one).run(None, fed) for one in (libraries[HERE[-1]], None))
    assert np.abs(found - made).max() <= EXACT * np.abs(made).max()


@pytest.mark.parametrize("processor", HERE)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_sizes_and_masks(libraries: dict[str, Path], processor: str, data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(OPS))
    samples, rows, columns = (data.draw(st.integers(1, data.draw(most))) for most in LIMITS)
    mask = data.draw(st.sampled_from(MASKS))
    fed = drawn(op, samples, rows, columns, mask, data.draw(st.integers(0, 1 << 30)))
    (found,) = session(op, libraries[processor], mask == "flags").run(None, fed)
    expected = wanted(op, fed)
    assert np.abs(found - expected).max() <= EXACT * max(np.abs(expected).max(), 1)


@pytest.mark.parametrize("rows", [3, 7, 40])
@pytest.mark.parametrize("processor", HERE)
def test_rows_that_are_all_hidden(libraries: dict[str, Path], processor: str, rows: int) -> None:
    """By -1e38 all columns weigh the same, by what the runtime takes for infinite none weighs anything: as its op."""
    op, masks = OPS[0], {-1e38: False, LOWEST: False, -np.inf: False, 0: True}
    for number, flags in masks.items():
        fed = drawn(op, 2, rows, 30, "flags" if flags else "scores")
        fed["mask"][1, :, 1] = number
        made, found = (session(op, one, flags).run(None, fed)[0] for one in (None, libraries[processor]))
        assert np.abs(found - made).max() <= EXACT * np.abs(made).max(), number
        fed["mask"][:] = number
        made, found = (session(op, one, flags).run(None, fed)[0] for one in (None, libraries[processor]))
        assert np.abs(found - made).max() <= EXACT * max(np.abs(made).max(), 1), number


@pytest.mark.parametrize("processor", HERE)
@pytest.mark.parametrize("rows", [2, 33])
def test_large_numbers_and_such_as_are_none(libraries: dict[str, Path], processor: str, rows: int) -> None:
    """Scores of any size keep their order, and what is no number makes none."""
    op = OPS[0]
    fed = drawn(op, 1, rows, 150)
    fed["queries"] *= 1e4
    (found,) = session(op, libraries[processor]).run(None, fed)
    expected = wanted(op, fed)
    assert np.isfinite(found).all() and np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()
    fed = drawn(op, 1, rows, 150)
    fed["keys"][0, 0, :32] = np.nan  # of the first head, in a column that is seen
    (found,) = session(op, libraries[processor]).run(None, fed)
    assert np.isnan(found[..., :32]).all() and np.isfinite(found[..., 32:]).all()


@pytest.mark.parametrize("sizes", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_nothing_to_do(libraries: dict[str, Path], sizes: tuple[int, int, int]) -> None:
    op = OPS[4]
    (found,) = session(op, libraries[HERE[-1]]).run(None, drawn(op, *sizes))
    assert found.shape == (*sizes[:2], 240) and not found.any()


@pytest.mark.parametrize(
    ("name", "shape", "fault"),
    [
        ("values", (2, 8, 384), "queries, keys and values do not fit"),
        ("keys", (1, 7, 384), "queries, keys and values do not fit"),
        ("queries", (2, 5, 192), "queries, keys and values do not fit"),
        ("mask", (2, 1, 5, 8), "a mask does not fit"),
        ("mask", (2, 3, 5, 7), "a mask does not fit"),
        ("mask", (1, 2, 1, 5, 7), "a mask does not fit"),
        ("mask", (7,), "a mask does not fit"),
    ],
)
def test_what_does_not_fit_reject(libraries: dict[str, Path], name: str, shape: tuple[int, ...], fault: str) -> None:
    fed = drawn(OPS[0], 2, 5, 7) | {name: np.zeros(shape, np.float32)}
    with pytest.raises(Exception, match=fault):
        session(OPS[0], libraries[HERE[-1]]).run(None, fed)


def test_names() -> None:
    assert OPS[0].name == "attend_dense_12x12x32_masked" and OPS[2].name == "attend_dense_4x4x48_causal"
    for op in OPS:
        assert parse_dense(op.name) == parse_kernel(op.name) == op
    assert parse_dense("attend_dense_9x2x64") is None
    assert parse_dense("attend_dense_09x3x64") is None


@pytest.mark.parametrize("op", [DenseOp(2, 2, 24), DenseOp(2, 2, 0), DenseOp(1, 1, 1024)])
def test_sizes_reject(op: DenseOp) -> None:
    assert not ATTENDS_DENSE.serves(op, PROCESSORS["avx512-vnni"], "exact")
    assert not ATTENDS_DENSE.serves(OPS[0], PROCESSORS["generic"], "exact")


HEAD = """<ir_version: 11, opset_import: ["" : 23]>
net (float[N, S, 64] q, float[N, T, 32] k, float[N, T, 32] v, float[N, 1, 1, T] mask) => (float[N, S, 64] y)
{
    ones = Constant <value_ints = [1, 1]> ()
    rows = Shape <start = 1, end = 2> (q)
    columns = Shape <start = 1, end = 2> (k)
    sizes = Concat <axis = 0> (ones, rows, columns)
    whole = Expand (mask, sizes)
"""
WRITTEN = HEAD + "    y = Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.3> (q, k, v, whole)\n}"
LEFT = {
    "a cap": "y = Attention <q_num_heads = 4, kv_num_heads = 2, softcap = 5.0> (q, k, v)",
    "its keys are read": "y, keys, w = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)\nz = Add (keys, keys)",
    "no heads": "q4 = Unsqueeze (q, at)\nk4 = Unsqueeze (k, at)\ny4 = Attention (q4, q4, q4)\ny = Squeeze (y4, at)",
}


def graph_of(text: str, path: Path) -> OnnxGraph:
    onnx.save(onnx.parser.parse_model(text), path)
    return OnnxGraph.load(path)


def test_the_op_of_the_standard_becomes_ours_and_its_mask_is_read_as_it_was(tmp_path: Path) -> None:
    graph = graph_of(WRITTEN, tmp_path / "net.onnx")
    draw = np.random.default_rng(0)
    shapes = {"q": (2, 9, 64), "k": (2, 11, 32), "v": (2, 11, 32), "mask": (2, 1, 1, 11)}
    fed = {name: draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    before = graph.runner(list(fed), ["y"])(fed)["y"]
    assert graph.copy().chain(lambda _: False) == ()
    op = DenseOp(4, 2, 16, masked=True)
    assert graph.chain(lambda one: one == op) == (op,)
    assert graph.copy().chain(lambda one: one == op) == (op,)  # again: it stays
    assert [one.function for one in graph.ops()].count(op.name) == 1
    reads = next(node for node in graph.model.graph if node.op_type == op.name).inputs
    assert [one and one.name for one in reads] == ["q", "k", "v", "mask"]
    np.testing.assert_allclose(graph.runner(list(fed), ["y"])(fed)["y"], before, atol=1e-6)


@pytest.mark.parametrize("why", LEFT)
def test_others_are_left_reject(tmp_path: Path, why: str) -> None:
    text = HEAD.replace("{\n", "{\n    at = Constant <value_ints = [1]> ()\n") + f"    {LEFT[why]}\n}}"
    assert graph_of(text, tmp_path / "net.onnx").chain(lambda _: True) == ()


NET = """<ir_version: 10, opset_import: ["" : 20]>
net (float[N, S, 64] x) => (float[N, S, 64] y)
<float[64, 64] wq = {WQ}, float[64, 64] wk = {WK}, float[64, 64] wv = {WV}, int64[4] heads = {0, 0, 2, 32},
 int64[3] flat = {0, 0, -1}, float scale = {0.17677669}>
{
    q0 = MatMul (x, wq)
    q1 = Reshape (q0, heads)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    k0 = MatMul (x, wk)
    k1 = Reshape (k0, heads)
    k = Transpose <perm = [0, 2, 3, 1]> (k1)
    v0 = MatMul (x, wv)
    v1 = Reshape (v0, heads)
    v = Transpose <perm = [0, 2, 1, 3]> (v1)
    products = MatMul (q, k)
    scores = Mul (products, scale)
    weights = Softmax (scores)
    made = MatMul (weights, v)
    rows = Transpose <perm = [0, 2, 1, 3]> (made)
    y = Reshape (rows, flat)
}
"""


@pytest.mark.slow
def test_the_driver_makes_a_library_of_it(tmp_path: Path) -> None:
    """The file gives with its kernels what it gives without."""
    draw, text = np.random.default_rng(0), NET
    for name in ("WQ", "WK", "WV"):
        text = text.replace(name, ", ".join(f"{number:.4f}" for number in draw.standard_normal(4096) / 8))
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    policy = f"qpolicy 1\ntarget cpu({HERE[-1]})\nrule linear {{ keep }}\nrule attention {{ fuse = on }}\n"
    (tmp_path / "p.qpolicy").write_text(policy, encoding="utf-8")
    result = qcc.compile(tmp_path / "net.onnx", tmp_path / "p.qpolicy")
    assert result.kernels is not None and "attend_dense_2x2x32" in result.ops
    fed = {"x": draw.standard_normal((2, 19, 64), np.float32)}
    given_, plain = (qcc.Session(result.output, kernels).run(fed)["y"] for kernels in (True, False))
    assert np.abs(given_ - plain).max() <= EXACT * np.abs(plain).max()
