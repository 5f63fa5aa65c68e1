"""A small diffusion model, as text, and its loop."""

from pathlib import Path

import numpy as np
import onnx

WIDTH = 16
DEPTH = 6
LOOP = """
latent = "latent"
step = "time"
output = "v"
prediction = "v"
solver = "ddim"
evaluations = 12
seeds = 6
reference = 40

[schedule]
kind = "cosine"

[inputs]
label = [0, 1, 2]
"""
BLOCK = """
    up{0} = MatMul (h{0}, w{0})
    told{0} = Add (up{0}, c)
    act{0} = Tanh (told{0})
    down{0} = MatMul (act{0}, d{0})
    h{1} = Add (h{0}, down{0})
"""
TEXT = """
<ir_version: 9, opset_import: ["" : 18]>
denoise (float[batch, 1, 8, 4] latent, float[batch] time, int64[batch] label) => (float[batch, 1, 8, 4] v)
<
{declared}
>
{{
    rows = Constant <value: tensor = int64[3] {{0, 8, 4}}> ()
    image = Constant <value: tensor = int64[4] {{0, 1, 8, 4}}> ()
    axes = Constant <value: tensor = int64[2] {{1, 2}}> ()
    one = Constant <value: tensor = int64[1] {{1}}> ()
    tokens = Reshape (latent, rows)
    h0 = MatMul (tokens, enter)
    t = Unsqueeze (time, axes)
    turned = Mul (t, turn)
    named = Gather (names, label)
    wide = Unsqueeze (named, one)
    c = Add (turned, wide)
{blocks}
    left = MatMul (h{depth}, leave)
    v = Reshape (left, image)
}}
"""


def denoiser(depth: int = DEPTH) -> onnx.ModelProto:
    """``depth`` residual blocks over tokens ``[batch, 8, 16]``, told the time and a label; it predicts about ``v``."""
    rng = np.random.default_rng(0)
    shapes = {"enter": (4, WIDTH), "leave": (WIDTH, 4), "turn": (1, 1, WIDTH), "names": (3, WIDTH)}
    for at in range(depth):
        shapes |= {f"w{at}": (WIDTH, WIDTH), f"d{at}": (WIDTH, WIDTH)}
    declared = ",\n".join(f"    float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    blocks = "".join(BLOCK.format(at, at + 1) for at in range(depth))
    model = onnx.parser.parse_model(TEXT.format(declared=declared, blocks=blocks, depth=depth))
    enter = rng.standard_normal((4, WIDTH)) / 2
    for name, shape in shapes.items():
        array = rng.standard_normal(shape) / np.sqrt(WIDTH)
        array = {"enter": enter, "leave": -0.5 * np.linalg.pinv(enter)}.get(name, array)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    del model.graph.value_info[:]
    return model


def saved(folder: Path, loop: str = LOOP, depth: int = DEPTH) -> Path:
    """The model and its loop in a folder; the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(denoiser(depth), folder / "denoise.onnx")
    (folder / "loop.toml").write_text(loop, encoding="utf-8")
    return folder / "denoise.onnx"
