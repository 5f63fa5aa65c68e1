"""Activations rounded by a step of the model: integers that match numpy to the last bit, then one scaling."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import FunctionProto

from qcc.codegen.cpu.library.build import build
from qcc.codegen.target.target import Arithmetic
from qcc.ir.kernel.op import BIAS, LinearOp
from qcc.ir.onnx.emit.kernel_body import kernel_function
from tests.codegen_models import Layer, draw, linear, session, tried, unaligned

pytest.importorskip("tvm")

BITS = (2, 3, 4, 5, 6, 7, 8)
KERNELS = [
    linear(bits, None, symmetric, steps, static=True)
    for bits, symmetric, steps in itertools.product(BITS, (True, False), ((), (BIAS, "gelu")))
]
PLAIN = KERNELS[::2]
FLOAT = 1e-5  # of the largest sum of magnitudes: float32 sums of up to 320 products
TARGETS = [
    ("native", "int8"),
    ("native", "bf16"),
    ("sapphire-rapids", "int8"),
    ("avx512-vnni", "int8"),
    ("avx2", "int8"),
    ("native", "exact"),
    ("generic", "int8"),
]
INTEGERS = TARGETS[:5]
STEPS_TOO = "native", "int8"

Libraries = Callable[[str, Arithmetic], Path]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Libraries:
    folder = tmp_path_factory.mktemp("kernels")
    made: dict[tuple[str, Arithmetic], Path] = {}

    def make(target: str, activations: Arithmetic) -> Path:
        processor = tried(target)
        if (target, activations) not in made:
            out = folder / f"{target}-{activations}.so"
            kernels = KERNELS if (target, activations) == STEPS_TOO else PLAIN
            made[target, activations] = build(kernels, (processor,), out, activations)
        return made[target, activations]

    return make


def scaled(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Integers summed in int64, then scaled in float32 as kernels do."""
    dots = layer.integers(x).astype(np.int64) @ layer.centred.reshape(layer.codes.shape).astype(np.int64).T
    return dots.astype(np.float32) * (layer.scale[:, 0].astype(np.float32) * layer.input_scale)


cases = st.fixed_dictionaries(
    {
        "bits": st.sampled_from(BITS),
        "symmetric": st.booleans(),
        "rows": st.integers(1, 40),
        "outputs": st.integers(1, 130),
        "chunks": st.integers(1, 10),
        "spread": st.sampled_from((0.5, 3.0, 100.0)),
        "seed": st.integers(0, 1000),
    }
)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "activations"), INTEGERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases)
def test_integers_are_exact(libraries: Libraries, target: str, activations: Arithmetic, case: dict[str, int]) -> None:
    layer, x = drawn(case)
    result = session(layer.model(), libraries(target, activations)).run(None, {"x": unaligned(x)})[0]
    np.testing.assert_array_equal(result, scaled(layer, x))


@pytest.mark.slow
@pytest.mark.parametrize(("target", "activations"), TARGETS[5:])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases)
def test_float_kernels_round_too(
    libraries: Libraries, target: str, activations: Arithmetic, case: dict[str, int]
) -> None:
    layer, x = drawn(case)
    result = session(layer.model(), libraries(target, activations)).run(None, {"x": x})[0]
    rounded = (layer.integers(x) * layer.input_scale).astype(np.float32)
    assert np.abs(result - layer.product(x)).max() <= FLOAT * layer.magnitude(rounded)


def drawn(case: dict[str, int]) -> tuple[Layer, np.ndarray]:
    kernel = linear(case["bits"], None, bool(case["symmetric"]), static=True)
    layer = draw(kernel, case["outputs"], case["chunks"] * 32, case["seed"])
    random = np.random.default_rng(case["seed"])
    return layer, (random.standard_normal((case["rows"], case["chunks"] * 32)) * case["spread"]).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 3, 33])
@pytest.mark.parametrize("target", ["native", "sapphire-rapids", "avx512-vnni", "avx2"])
def test_extremes(libraries: Libraries, target: str, rows: int) -> None:
    """The largest sums, and what is out of range: infinity saturates, NaN is the lowest."""
    layer = draw(linear(8, None, False, static=True), 40, 1024)
    layer = Layer(layer.kernel, np.full_like(layer.codes, 255), layer.scale, np.full_like(layer.zero, -128))
    x = np.full((rows, 1024), 1e30, np.float32)
    x[0, :512], x[-1, 5:7], x[-1, 9] = -np.inf, np.nan, np.inf
    result = session(layer.model(), libraries(target, "int8")).run(None, {"x": x})[0]
    np.testing.assert_array_equal(result, scaled(layer, x))


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_plain_runtime_agrees(libraries: Libraries, kernel: LinearOp, rank: int) -> None:
    """The body says the same in standard ops; values right between two integers are left out."""
    layer = draw(kernel, 48, 96)
    x = np.random.default_rng(rank).standard_normal((2, 1, 3, 96)[4 - rank :]).astype(np.float32)
    x = ((np.rint(x / layer.input_scale) + 0.25) * layer.input_scale).astype(np.float32)
    plain = session(layer.model(body=_body(kernel)), None).run(None, {"x": x})[0]
    fast = session(layer.model(), libraries("native", "int8")).run(None, {"x": x})[0]
    assert np.abs(plain - fast).max() <= 1e-6 * layer.magnitude(x)
    assert plain.shape == fast.shape == (*x.shape[:-1], 48)


@pytest.mark.parametrize("shape", [("m", 96), ("b", "m", 96)])
def test_plain_runtime_multiplies_integers(tmp_path: Path, shape: tuple[str | int, ...]) -> None:
    """ONNX Runtime fuses the body to its own product of integers, for matrices too."""
    layer = draw(linear(8, None, True, (BIAS,), static=True), 48, 96)
    model = layer.model(body=_body(layer.kernel))
    for size in shape:
        dim = model.graph.input[0].type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    made = [node.op_type for node in ir.load(tmp_path / "optimised.onnx").graph]
    assert "MatMulIntegerToFloat" in made and "DequantizeLinear" not in made


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf, 1e-40])
def test_bad_step_reject(libraries: Libraries, step: float) -> None:
    layer = draw(linear(8, None, static=True), 8, 32)
    layer = Layer(layer.kernel, layer.codes, layer.scale, None, input_scale=np.float32(step))
    with pytest.raises(Exception, match="the step of the activations is out of range"):
        session(layer.model(), libraries("native", "int8"))


def _body(kernel: LinearOp) -> FunctionProto:
    return ir.serde.serialize_function(kernel_function(kernel, 21))
