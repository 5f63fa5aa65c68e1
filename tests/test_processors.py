"""What is written computes the same on every processor: the largest products there are, here and in an emulator.

A processor without VNNI adds two products of bytes in 16 bits, and what does not fit is cut off without a word: a file
that was verified on one machine could compute something else on another. The emulator knows no AVX-512; what a
processor with it computes is tested where the suite runs on one.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, Block
from qcc.ir.encoding.encoded import Encoded, Scales, stored
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.value import DYNAMIC_INT8, STATIC_BYTES, STATIC_INT8, EncodedValue
from qcc.ir.forms.bytes import BYTES
from qcc.ir.forms.fused import FUSED
from qcc.ir.forms.fusible import fusible
from qcc.ir.forms.integers import INTEGERS
from qcc.ir.graph.form import Form
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.ir.onnx.emit.kernel_body import kernel_function
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.places import places
from tests import onnx_models
from tests.codegen_models import STEP, draw, linear

EMULATOR = "qemu-x86_64"
INPUTS, OUTPUTS, ROWS = 256, 48, 5
TOLERANCE = 1e-5  # of the largest sum of magnitudes: float32 sums of scaled integers, in another order
SCRIPT = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
for stem in sys.argv[1:]:
    session = onnxruntime.InferenceSession(stem + ".onnx", options, providers=["CPUExecutionProvider"])
    numpy.save(stem + ".out.npy", session.run(None, {"x": numpy.load(stem + ".npy")})[0])
"""
needs_emulator = pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR}")


@dataclass(frozen=True)
class Case:
    """A model, what it is fed, the output in float64, and the largest sum of its terms' magnitudes."""

    name: str
    model: bytes
    x: np.ndarray
    wanted: np.ndarray
    magnitude: float

    def check(self, found: np.ndarray) -> None:
        assert np.abs(found - self.wanted).max() <= TOLERANCE * self.magnitude, self.name


def cases() -> Iterator[Case]:
    """Every form of whole numbers that the runtime multiplies: fused, with static activations, in a kernel's body."""
    for row in fusible():
        for size in row.groups:
            text, _, word = row.codes.partition(" ")
            yield written(Blocked(IntGrid(int(text.removeprefix("int")), word == "sym"), Block(1, size)))
    yield written(Blocked(IntGrid(7), CHANNEL), EncodedValue(STATIC_INT8, np.float32(1 / 127)))
    yield written(Blocked(IntGrid(7), CHANNEL), EncodedValue(DYNAMIC_INT8))
    for bits, symmetric in product((4, 7, 8), (True, False)):
        yield body(bits, symmetric)
    for form, name in product((BYTES, INTEGERS), CONVOLUTIONS):
        yield convolution(form, name)


def codes(bits: int, outputs: int, inputs: int) -> np.ndarray:
    """Rows of the highest code, of the lowest, of both in turn, and random ones."""
    found = np.random.default_rng(bits).integers(0, 1 << bits, (outputs, inputs))
    found[0::4], found[1::4], found[2::4, ::2] = (1 << bits) - 1, 0, 0
    return found.astype(np.uint8)


def integers() -> np.ndarray:
    """Activations of int8: the highest, the lowest, both in turn, and random ones, a largest in every 16."""
    found = np.random.default_rng(0).integers(-127, 128, (ROWS, INPUTS))
    found[:, ::16] = 127
    found[0], found[1], found[2, 1::2] = 127, -127, -127
    return found


def written(encoding: Blocked, value: EncodedValue | None = None) -> Case:
    """One layer as the runtime multiplies it: fused, or as integers."""
    grid = encoding.block.grid((OUTPUTS, INPUTS))
    middle = 1 << (encoding.bits - 1)
    zero = None if encoding.symmetric else np.resize(np.array([0, middle, 2 * middle - 1], np.uint8), grid)
    scales = Scales(np.full(grid, 0.0625, np.float16), zero)
    parts = stored(encoding, codes(encoding.bits, OUTPUTS, INPUTS), scales)
    encoded = Encoded(encoding, (OUTPUTS, INPUTS), parts)
    weight = np.zeros((INPUTS, OUTPUTS), np.float32)
    text = f"g (float[N,{INPUTS}] x) => (float[N,{OUTPUTS}] y) {{ y = MatMul (x, w) }}"
    model = onnx_models.parse(text, {"w": weight}, opset=25, ir_version=11)
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    (read,) = graph.weights()
    read = read if value is None else graph.encode_inputs(read, value)
    graph.encode(read, encoded, FUSED if value is None else INTEGERS)
    x, matrix = (integers() / np.float32(127)).astype(np.float32), encoded.decode().astype(np.float64)
    name = f"{encoding.text.replace(' ', '-')}{'' if value is None else f'-{value.encoding.when}'}"
    model_bytes = ir.serde.serialize_model(graph.model).SerializeToString()
    return Case(name, model_bytes, x, x @ matrix.T, float((np.abs(x) @ np.abs(matrix).T).max()))


def body(bits: int, symmetric: bool) -> Case:
    """One op as it runs where no library takes it."""
    op = linear(bits, None, symmetric, static=True)
    layer = draw(op, OUTPUTS, INPUTS)
    layer.codes[...] = codes(bits, OUTPUTS, INPUTS)
    x = (integers()[None] * STEP).astype(np.float32)
    model = layer.model(body=ir.serde.serialize_function(kernel_function(op, 21)))
    return Case(op.name, model.SerializeToString(), x, layer.product(x), layer.magnitude(x))


CONVOLUTIONS = {
    "1d": ((48, 16, 3), (16, 9), 1),
    "2d": ((48, 16, 3, 3), (16, 6, 6), 1),
    "3d": ((48, 8, 2, 2, 2), (8, 4, 4, 4), 1),
    "point": ((48, 64, 1, 1), (64, 4, 4), 1),
    "grouped": ((48, 16, 3, 3), (64, 6, 6), 4),
    "multiplied": ((48, 1, 3, 3), (24, 6, 6), 24),
    "depthwise": ((48, 1, 3, 3), (48, 6, 6), 48),
    "depthwise_1d": ((48, 1, 5), (48, 12), 48),
    "depthwise_3d": ((48, 1, 2, 2, 2), (48, 4, 4, 4), 48),
}


def convolution(form: Form, name: str) -> Case:
    """One convolution of bytes up to 255 with the largest codes; what it makes is rounded, and the same exactly."""
    shape, inputs, groups = CONVOLUTIONS[name]
    bits = 8 if form is BYTES else 7
    text = f"g (float[N,{', '.join(map(str, inputs))}] x) => (float[N{''.join(f',y{at}' for at in inputs)}] y) "
    text += f"{{ y = Conv <group = {groups}> (x, w) }}"
    model = onnx_models.parse(text, {"w": np.zeros(shape, np.float32)}, opset=21, ir_version=10)
    model.graph.node[0].name = "conv"
    graph = OnnxGraph(ir.serde.deserialize_model(model), Path())
    graph.simplify()
    (weight,) = graph.weights()
    encoding = Blocked(IntGrid(bits), CHANNEL)
    scale = np.full((weight.shape[0], 1), 0.0625, np.float16)
    encoded = Encoded(encoding, weight.shape, stored(encoding, codes(bits, *weight.shape), Scales(scale, None)))
    x = np.random.default_rng(1).integers(0, 256, (3, *inputs))
    x[0], x[1, :, ::2] = 255, 255
    largest = 255 * np.abs(encoded.decode()).sum(1).max()
    made = EncodedValue(STATIC_BYTES, np.float32(2.0 ** np.ceil(np.log2(largest / 100))), 128)
    for place in places(Flow(graph), weight, form):
        value = EncodedValue(STATIC_BYTES, np.float32(1), 0) if place.readers else made
        graph.encode_value(place.value, value, place.readers)
    (weight,) = graph.weights()
    reference = graph.copy()
    reference.replace_constant("w", graph.as_constant(weight, encoded.decode()))
    graph.encode(weight, encoded, form)
    fed = x.astype(np.float32)
    wanted = reference.runner(["x"], ["y"], optimise=False)({"x": fed})["y"]
    model_bytes = ir.serde.serialize_model(graph.model).SerializeToString()
    return Case(f"{form}-{name}", model_bytes, fed, wanted, float(np.abs(wanted).max()))


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_the_largest_products_are_exact(case: Case) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
    case.check(session.run(None, {"x": case.x})[0])


@pytest.mark.slow
@needs_emulator
@pytest.mark.parametrize("processor", ["Haswell", "Nehalem"])
def test_on_another_processor(processor: str, tmp_path: Path) -> None:
    """With AVX2 and no VNNI, and with neither: a whole Python runs in the emulator."""
    tried = {str(tmp_path / case.name): case for case in cases()}
    for stem, case in tried.items():
        Path(f"{stem}.onnx").write_bytes(case.model)
        np.save(f"{stem}.npy", case.x)
    command = [EMULATOR, "-cpu", processor, os.path.realpath(sys.executable), "-c", SCRIPT, *tried]
    path = os.pathsep.join(entry for entry in sys.path if entry.endswith("site-packages"))
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for stem, case in tried.items():
        case.check(np.load(f"{stem}.out.npy"))
