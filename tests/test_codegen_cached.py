"""Attention over caches of codes: the kernel against the op's own body in the runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

import qcc
from qcc.codegen.cpu.attend.template import ATTENDS_CACHED
from qcc.codegen.cpu.library.build import build
from qcc.codegen.cpu.processors.processors import PROCESSORS
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.serves import serves
from qcc.ir.kernel.cached_op import CachedOp, RowCode, parse_cached
from qcc.ir.kernel.kernel_op import parse_kernel
from qcc.ir.onnx.attention.cached.body import cached_function
from qcc.ir.onnx.file.domain import DOMAIN, VERSION

pytest.importorskip("tvm")
TOLERANCE = 1e-5  # of the largest result: float32, in another order of sums
HERE = [name for name in ("avx2", "avx512-vnni") if not PROCESSORS[name].obstacle]
NAMES = [
    "attend_6x2x64_int8_int8",
    "attend_9x3x64_int4_int4g32fp16",
    "attend_2x2x32_int4g32e8m0_int8g16fp32",
    "attend_8x1x64_int8g32e8m0_int4g64fp16_first",
    "attend_5x1x80_float_float",
]
OPS = {name: op for name in NAMES if (op := parse_cached(name)) is not None}
SIZES = [(2, 1, 37, 1), (1, 3, 600, 2), (1, 40, 21, 1), (2, 2, 0, 1), (1, 1, 1040, 3)]  # samples, new, earlier, threads
Arrays = dict[str, np.ndarray]


def drawn(op: CachedOp, samples: int, new: int, earlier: int, seed: int = 0) -> Arrays:
    """Codes of all values, and a bias that hides some rows."""
    rng, first = np.random.default_rng(seed), 5 * op.first
    found: Arrays = {"queries": rng.standard_normal((samples, new, op.heads * op.channels), np.float32) / 30}
    for name, code in (("keys", op.keys), ("values", op.values)):
        size = 1 if code.group or code.is_float else 3 if code.bits == 4 else 60
        fed = size * rng.standard_normal((samples, new, op.kept_heads * op.channels))
        found[name] = fed.astype(np.float32)
        shape = samples, op.kept_heads, earlier, op.channels // (2 if code.bits == 4 else 1)
        if code.is_float:
            found[f"past_{name}"] = rng.standard_normal(shape, np.float32)
        else:
            found[f"past_{name}"] = rng.integers(-128, 128, shape).astype(np.int8).view(code.dtype)
        if code.group:
            scale = rng.integers(118, 124, (*shape[:3], op.channels // code.group))
            found[f"past_{name}_scale"] = (scale if code.scale == "e8m0" else scale / 4000).astype(code.scale_dtype)
    for name in ("first_keys", "first_values") if first else ():
        found[name] = rng.standard_normal((samples, op.kept_heads, first, op.channels), np.float32)
    bias = rng.standard_normal((samples, 1, new, first + earlier + new)).astype(np.float32)
    later = np.arange(bias.shape[-1]) > first + earlier + np.arange(new)[:, None]
    found["bias"] = np.where(later, np.float32(-1e38), bias)
    return {name: found[name] for name in op.inputs}


def model(op: CachedOp, body: bool) -> bytes:
    kinds = {name: helper.np_dtype_to_tensor_dtype(op.dtype(name)) for name in (*op.inputs, *op.outputs)}
    values = {name: helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()}
    ends = [values[name] for name in op.inputs], [values[name] for name in op.outputs]
    node = helper.make_node(op.name, list(op.inputs), list(op.outputs), domain=DOMAIN)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    functions = [ir.serde.serialize_function(cached_function(op, 21))] if body else []
    graph = helper.make_graph([node], "one", *ends)
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
    return bytes(made.SerializeToString())


def session(op: CachedOp, library: Path | None, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if library is not None:
        register(options, str(library))
    return onnxruntime.InferenceSession(model(op, library is None), options)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cached")
    return {name: build(OPS.values(), (PROCESSORS[name],), folder / f"{name}.so") for name in HERE}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processor", HERE)
def test_the_kernel_computes_what_the_body_does(libraries: dict[str, Path], processor: str, name: str) -> None:
    op, library = OPS[name], libraries[processor]
    assert serves(str(library), [op]) == {op}
    plain, own = session(op, None), {count: session(op, library, count) for count in (1, 2, 3)}
    for seed, (samples, new, earlier, threads) in enumerate(SIZES):
        feeds = drawn(op, samples, new, earlier, seed)
        for word, array in {"bias": feeds["bias"][:1], "by head": np.repeat(feeds["bias"], op.heads, 1)}.items():
            given = feeds | {"bias": array}
            wanted = dict(zip(op.outputs, plain.run(None, given), strict=True))
            found = dict(zip(op.outputs, own[threads].run(None, given), strict=True))
            for each in op.outputs[1:]:
                assert np.array_equal(found[each], wanted[each]), (each, word, seed)
            slack = TOLERANCE * np.abs(wanted["y"]).max(initial=1e-3)
            assert np.abs(found["y"] - wanted["y"]).max(initial=0) <= slack, (word, seed)


@pytest.mark.parametrize(("new", "added"), [(7, 2), (5, 0), (40, 35)])
@pytest.mark.parametrize("processor", HERE)
def test_new_rows_may_be_first_ones(libraries: dict[str, Path], processor: str, new: int, added: int) -> None:
    """A text's first run has queries of those, too, whose keys and values are floats and no codes."""
    op = OPS["attend_8x1x64_int8g32e8m0_int4g64fp16_first"]
    given = drawn(op, 2, new, 0)
    given |= {name: given[name][:, new - added :] for name in ("keys", "values")}
    given["bias"] = given["bias"][..., : 5 + added]
    (wanted, *codes), (found, *kept) = (session(op, path).run(None, given) for path in (None, libraries[processor]))
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    for one, other in zip(codes, kept, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("processor", HERE)
def test_rows_that_are_all_hidden(libraries: dict[str, Path], processor: str) -> None:
    """By the lowest number all rows weigh the same, as by the body."""
    op = OPS[NAMES[0]]
    feeds = drawn(op, 1, 2, 30)
    feeds["bias"][..., 0, :] = np.finfo(np.float32).min
    (wanted, *_), (found, *_) = (session(op, one).run(None, feeds) for one in (None, libraries[processor]))
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("name", "shape", "fault"),
    [
        ("past_values", (1, 2, 29, 64), "caches and new rows do not fit"),
        ("past_keys", (1, 2, 30, 32), "caches and new rows do not fit"),
        ("values", (1, 2, 64), "queries, keys and values do not fit"),
        ("bias", (1, 1, 2, 31), "added to scores does not fit"),
        ("bias", (1, 3, 2, 32), "added to scores does not fit"),
    ],
)
def test_what_does_not_fit_reject(libraries: dict[str, Path], name: str, shape: tuple[int, ...], fault: str) -> None:
    op = OPS[NAMES[0]]
    feeds = drawn(op, 1, 2, 30)
    with pytest.raises(Exception, match=fault):
        session(op, libraries[HERE[-1]]).run(None, feeds | {name: np.zeros(shape, feeds[name].dtype)})


def test_names() -> None:
    op = CachedOp(9, 3, 64, RowCode(4), RowCode(4, 32, "fp16"), True)
    assert op.name == "attend_9x3x64_int4_int4g32fp16_first"
    assert parse_cached(op.name) == parse_kernel(op.name) == op
    assert parse_cached("attend_9x2x64_int4_int4") is None
    assert parse_cached("attend_09x3x64_int4_int4") is None


@pytest.mark.parametrize(
    "sizes", ["2x2x24_int8_int8", "2x2x48_int4_int8", "2x2x64_int8g8fp16_int8", "1x1x1024_int8_int8"]
)
def test_sizes_reject(sizes: str) -> None:
    op = parse_cached(f"attend_{sizes}")
    assert op is not None
    assert not ATTENDS_CACHED.serves(op, PROCESSORS["avx512-vnni"], "exact")
    assert not ATTENDS_CACHED.serves(OPS[NAMES[0]], PROCESSORS["generic"], "exact")


PAST = """<ir_version: 10, opset_import: ["" : 20]>
net (float[N, S, 64] x, float[N, 1, P, 32] past_key, float[N, 1, P, 32] past_value)
    => (float[N, S, 64] y, float[N, 1, T, 32] key_all, float[N, 1, T, 32] value_all)
<float[64, 64] wq = {WQ}, float[64, 32] wk = {WK}, float[64, 32] wv = {WV}, int64[4] q_heads = {0, 0, 2, 32},
 int64[4] k_heads = {0, 0, 1, 32}, int64[3] flat = {0, 0, -1}, float scale = {0.17677669}>
{
    q0 = MatMul (x, wq)
    q1 = Reshape (q0, q_heads)
    q = Transpose <perm = [0, 2, 1, 3]> (q1)
    k0 = MatMul (x, wk)
    k1 = Reshape (k0, k_heads)
    k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
    v0 = MatMul (x, wv)
    v1 = Reshape (v0, k_heads)
    v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
    key_all = Concat <axis = 2> (past_key, k2)
    value_all = Concat <axis = 2> (past_value, v2)
    turned = Transpose <perm = [0, 1, 3, 2]> (key_all)
    products = MatMul (q, turned)
    scores = Mul (products, scale)
    weights = Softmax (scores)
    made = MatMul (weights, value_all)
    rows = Transpose <perm = [0, 2, 1, 3]> (made)
    y = Reshape (rows, flat)
}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        "keys = int8 channel, values = int4 group 32, float_tokens = 1; form",
        "keys = int4 group 32, values = int4 channel; channels = mixed; form",
        "form",
    ],
)
def test_the_driver_makes_a_library_of_it(tmp_path: Path, rule: str) -> None:
    """The file gives with its kernels what it gives without."""
    draw = np.random.default_rng(0)
    text = PAST
    for name, count in (("WQ", 4096), ("WK", 2048), ("WV", 2048)):
        text = text.replace(name, ", ".join(f"{number:.4f}" for number in draw.standard_normal(count) / 8))
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    feeds: Arrays = {"x": draw.standard_normal((1, 3, 64), np.float32)}
    feeds |= {name: draw.standard_normal((1, 1, 40, 32), np.float32) for name in ("past_key", "past_value")}
    x, key, value = (np.repeat(array, 2, 0) for array in feeds.values())
    np.savez(tmp_path / "data.npz", x=x, past_key=key, past_value=value)
    rules = f"rule linear {{ keep }}\nrule cache {{ {rule} = kernel }}\n"
    policy = f'qpolicy 1\ntarget cpu({HERE[-1]})\ncalibrate "data.npz"\n{rules}'
    (tmp_path / "p.qpolicy").write_text(policy, encoding="utf-8")
    result = qcc.compile(tmp_path / "net.onnx", tmp_path / "p.qpolicy")
    assert result.kernels is not None
    assert any(name.startswith("attend_2x1x32_") for name in result.ops)
    given, wanted = (
        one.run(one.coded(feeds)) for one in (qcc.Session(result.output, kernels) for kernels in (True, False))
    )
    assert list(given) == list(wanted)
    for name, array in wanted.items():
        assert np.abs(np.subtract(given[name], array, dtype=np.float32)).max() <= TOLERANCE, name
