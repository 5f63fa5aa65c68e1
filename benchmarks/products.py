"""Compare the products of bytes that ONNX Runtime has, which static activations rest on: what they compute, and time.

    python -m benchmarks.products

One layer, one thread, weights with one scale a channel; a ratio above 1 is slower than float32. ``right`` says whether
the largest products there are come out as they should.
"""

from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.processes.timing import machine, session
from qcc.compiler.measure.timing import Turns, interleaved

SHAPES = ((384, 384), (384, 1536), (1024, 1024))  # inputs, outputs
ROWS = (1, 16, 128)
STEP, SCALE = np.float32(0.05), np.float32(0.01)
TURNS = Turns(rounds=25, turn_s=0.002, warm=True, own=True)
KINDS = {
    "u8 x s8": (128, 0),  # the zeros of activations and weights; what lies at 128 has no sign
    "u8 x u8": (128, 128),
    "s8 x s8": (0, 0),
    "float": None,
}
HEAD = '<ir_version: 10, opset_import: ["": 21]> layer (float[1, rows, {}] x) => (float[1, rows, {}] y)'
FLOATS = "{ y = MatMul (x, w) }"
BYTES = """{
    q = QuantizeLinear (x, step, middle)
    d = DequantizeLinear (q, step, middle)
    v = DequantizeLinear <axis = 1> (w, scale, zero)
    y = MatMul (d, v)
}"""


def layer(kind: str, weight: np.ndarray) -> bytes:
    """A model of one layer whose weight ``[inputs, outputs]`` is whole numbers of int8."""
    zeros, (inputs, outputs) = KINDS[kind], weight.shape
    constants: dict[str, np.ndarray] = {}
    if zeros is None:
        body, constants["w"] = FLOATS, weight.astype(np.float32) * SCALE
    else:
        body = BYTES
        middle, zero = (np.array(one, np.uint8 if one else np.int8) for one in zeros)
        codes = (weight + zeros[1]).astype(zero.dtype)
        constants |= {"step": np.array(STEP), "middle": middle, "w": codes}
        constants |= {"scale": np.full(outputs, SCALE, np.float32), "zero": np.full(outputs, zero)}
    model = onnx.parser.parse_model(HEAD.format(inputs, outputs) + body)
    model.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in constants.items())
    return bytes(model.SerializeToString())


def is_right(kind: str) -> bool:
    """The product of the largest numbers is exact."""
    inputs = 64
    x = np.full((1, 3, inputs), 127 * STEP, np.float32)
    found = session(layer(kind, np.full((inputs, 48), 127)), threads=1).run(None, {"x": x})[0]
    return bool(np.allclose(found, inputs * 127 * 127 * float(STEP) * float(SCALE), rtol=1e-5))


def main() -> None:
    """Print the table as Markdown."""
    print(f"{machine()}\n")
    kinds = [kind for kind in KINDS if kind != "float"]
    print(f"| inputs x outputs | rows | {' | '.join(kinds)} |\n| --- | --- |{' --- |' * len(kinds)}", flush=True)
    for inputs, outputs in SHAPES:
        weight = np.random.default_rng(0).integers(-127, 128, (inputs, outputs))
        sessions = [session(layer(kind, weight), threads=1) for kind in KINDS]
        for rows in ROWS:
            x = np.random.default_rng(1).standard_normal((1, rows, inputs)).astype(np.float32)
            seconds = np.median(interleaved([partial(one.run, None, {"x": x}) for one in sessions], TURNS), axis=1)
            ratios = " | ".join(f"{one / seconds[-1]:.2f}" for one in seconds[:-1])
            print(f"| {inputs}x{outputs} | {rows} | {ratios} |", flush=True)
    print(f"| right | | {' | '.join('yes' if is_right(kind) else 'no' for kind in kinds)} |")


if __name__ == "__main__":
    main()
