"""Attentions as exporters spell them, as text: of one layer, without weights but those of the projections."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qcc.ir.graph.ops import Array
from tests.onnx_models import Case, random

BATCH, ROWS, HEADS, SHARED, WIDTH = 2, 5, 4, 2, 8
ALL = HEADS * WIDTH
RATES = (1.0, 0.3, 0.1, 0.01)  # at which pairs of channels turn
X = random(BATCH, ROWS, ALL)


@dataclass(frozen=True)
class Spelling:
    """Text of a graph's body behind the projections ``q``, ``k``, ``v`` ``[batch, rows, channels]``.

    Args:
        body: makes ``y``.
        constants: which it reads.
        shared: heads of keys and values.
        inputs: further inputs and what they are fed.
        types: theirs, as text.
        outputs: further outputs, as text.
        opset: of the model.
    """

    body: str
    constants: Mapping[str, Array] = field(default_factory=dict)
    shared: int = HEADS
    inputs: Mapping[str, Array] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    outputs: str = ""
    opset: int = 17


def case(spelling: Spelling) -> Case:
    """The model and something to feed it."""
    held = spelling.shared * WIDTH
    weights = {"wq": random(ALL, ALL), "wk": random(ALL, held, seed=1), "wv": random(ALL, held, seed=2)}
    fed = ", ".join(f"{spelling.types[name]} {name}" for name in spelling.inputs)
    head = f"g (float[{BATCH}, S, {ALL}] x{', ' + fed if fed else ''}) => (float y{spelling.outputs})"
    projections = "q = MatMul (x, wq)\n k = MatMul (x, wk)\n v = MatMul (x, wv)\n"
    body = head + " {\n" + projections + spelling.body + "\n}"
    return Case(body, {**weights, **spelling.constants}, {"x": X, **spelling.inputs}, spelling.opset)


def split() -> str:
    """Heads of queries, keys and values as an axis of their own."""
    return "\n".join(
        f"{name}4 = Reshape ({name}, {shape})\n {name}h = Transpose <perm = [0, 2, 1, 3]> ({name}4)"
        for name, shape in (("q", "heads"), ("k", "held"), ("v", "held"))
    )


def sizes(shared: int = HEADS) -> dict[str, Array]:
    """The constants of `split`."""
    return {"heads": whole(0, 0, HEADS, WIDTH), "held": whole(0, 0, shared, WIDTH)}


def whole(*numbers: int) -> Array:
    """A row of whole numbers."""
    return np.array(numbers, np.int64)


def scalar(number: float) -> Array:
    """One number."""
    return np.array(number, np.float32)


PRODUCT = "kt = Transpose <perm = [0, 1, 3, 2]> (kh)\n s = MatMul (qh, kt)\n"
PLAIN = Spelling(
    f"{split()}\n{PRODUCT} z = Mul (s, scale)\n p = Softmax <axis = -1> (z)\n y = MatMul (p, vh)",
    {**sizes(), "scale": scalar(0.25)},
)
CAUSAL = np.where(np.tri(ROWS, dtype=bool), 0, -3e38).astype(np.float32)[None, None]
GROUPED = Spelling(
    f"""{split()}
    k5 = Unsqueeze (kh, two)
    ke = Expand (k5, wide)
    kr = Reshape (ke, merged)
    v5 = Unsqueeze (vh, two)
    ve = Expand (v5, wide)
    vr = Reshape (ve, merged)
    kt = Transpose <perm = [0, 1, 3, 2]> (kr)
    root = Sqrt (scale)
    qs = Mul (qh, root)
    ks = Mul (kt, root)
    s = MatMul (qs, ks)
    z = Add (s, mask)
    p = Softmax <axis = -1> (z)
    bad = IsNaN (p)
    good = Where (bad, zero, p)
    y = MatMul (good, vr)""",
    {
        **sizes(SHARED),
        "scale": scalar(0.5),
        "two": whole(2),
        "wide": whole(1, 1, HEADS // SHARED, 1, 1),
        "zero": scalar(0),
    }
    | {"merged": whole(0, HEADS, -1, WIDTH), "mask": CAUSAL},
    SHARED,
)


def rotary(layout: str, name: str, width: int = WIDTH) -> str:
    """One of both turned, by tables ``cos`` and ``sin``."""
    x, y = f"{name}h", f"{name}r"
    if layout == "half":
        return f"""{name}a = Slice ({x}, zero_, half, last)
        {name}b = Slice ({x}, half, end, last)
        {name}n = Neg ({name}b)
        {name}o = Concat <axis = -1> ({name}n, {name}a)
        {name}c = Mul ({x}, cos)
        {name}s = Mul ({name}o, sin)
        {y} = Add ({name}c, {name}s)"""
    return f"""{name}a = Slice ({x}, zero_, end, last, step)
    {name}b = Slice ({x}, one_, end, last, step)
    {name}n = Neg ({name}b)
    {name}nu = Unsqueeze ({name}n, four)
    {name}au = Unsqueeze ({name}a, four)
    {name}u = Concat <axis = -1> ({name}nu, {name}au)
    {name}o = Reshape ({name}u, full)
    {name}c = Mul ({x}, cos)
    {name}s = Mul ({name}o, sin)
    {y} = Add ({name}c, {name}s)"""


def turned(layout: str) -> Spelling:
    """Rotary embeddings of queries and keys, of tables that hang on the number of rows."""
    tables = """shape = Shape <start = 1, end = 2> (x)
    count = Squeeze (shape)
    places = Range (from, count, by)
    floats = Cast <to = 1> (places)
    column = Unsqueeze (floats, one_)
    angles = Mul (column, rates)
    cos = Cos (angles)
    sin = Sin (angles)"""
    product = "kt = Transpose <perm = [0, 1, 3, 2]> (kr)\n s = MatMul (qr, kt)\n"
    rates = np.repeat(RATES, 2) if layout == "interleaved" else np.tile(RATES, 2)
    return Spelling(
        f"{split()}\n{tables}\n{rotary(layout, 'q')}\n{rotary(layout, 'k')}\n{product} z = Div (s, scale)\n"
        " p = Softmax <axis = -1> (z)\n y = MatMul (p, vh)",
        {
            **sizes(),
            "scale": scalar(4),
            "zero_": whole(0),
            "one_": whole(1),
            "half": whole(WIDTH // 2),
            "end": whole(99),
        }
        | {"last": whole(3), "step": whole(2), "four": whole(4), "full": whole(0, 0, 0, -1), "from": np.array(0)}
        | {"by": np.array(1), "rates": rates.astype(np.float32)},
    )


PAST = Spelling(
    f"""{split()}
    key_all = Concat <axis = 2> (past_key, kh)
    value_all = Concat <axis = 2> (past_value, vh)
    kt = Transpose <perm = [0, 1, 3, 2]> (key_all)
    s = MatMul (qh, kt)
    z = Mul (s, scale)
    p = Softmax <axis = -1> (z)
    y = MatMul (p, value_all)""",
    {**sizes(), "scale": scalar(0.25)},
    inputs={name: random(BATCH, HEADS, 3, WIDTH, seed=at) for at, name in enumerate(("past_key", "past_value"))},
    types=dict.fromkeys(("past_key", "past_value"), f"float[{BATCH}, {HEADS}, P, {WIDTH}]"),
    outputs=", float key_all, float value_all",
)
MASKED_PAST = Spelling(
    PAST.body.replace(
        "z = Mul (s, scale)",
        """floats = Cast <to = 1> (attention_mask)
    hidden = Sub (floats, one)
    large = Mul (hidden, least)
    rows = Unsqueeze (large, axes)
    scaled = Mul (s, scale)
    z = Add (scaled, rows)""",
    ),
    {**PAST.constants, "one": scalar(1), "least": scalar(1e9), "axes": whole(1, 2)},
    inputs={**PAST.inputs, "attention_mask": np.ones((BATCH, ROWS + 3), np.int64)},
    types={**PAST.types, "attention_mask": f"int64[{BATCH}, T]"},
    outputs=PAST.outputs,
)
SINKS = Spelling(
    f"""{split()}\n{PRODUCT}
    z = Mul (s, scale)
    first = Slice (z, zero_, one_, last)
    none = Mul (first, zero)
    more = Add (none, sinks)
    w = Concat <axis = -1> (z, more)
    p = Softmax <axis = -1> (w)
    cut = Slice (p, zero_, minus, last)
    y = MatMul (cut, vh)""",
    {**sizes(), "scale": scalar(0.25), "sinks": random(1, HEADS, 1, 1), "zero_": whole(0), "one_": whole(1)}
    | {"minus": whole(-1), "last": whole(3), "zero": scalar(0)},
)
CAPPED = Spelling(
    f"""{split()}\n{PRODUCT}
    z = Mul (s, scale)
    low = Div (z, bound)
    bent = Tanh (low)
    high = Mul (bent, bound)
    seen = Where (mask, high, never)
    p = Softmax <axis = -1> (seen)
    y = MatMul (p, vh)""",
    {**sizes(), "scale": scalar(0.25), "bound": scalar(30), "mask": np.tri(ROWS, dtype=bool), "never": scalar(-1e9)},
)
STANDARD = Spelling(
    f"y, key_all, value_all = Attention <q_num_heads = {HEADS}, kv_num_heads = {SHARED}, scale = 0.3>"
    " (q, k, v, , past_key, past_value)",
    shared=SHARED,
    inputs={name: random(BATCH, SHARED, 3, WIDTH, seed=at) for at, name in enumerate(("past_key", "past_value"))},
    types=dict.fromkeys(("past_key", "past_value"), f"float[{BATCH}, {SHARED}, P, {WIDTH}]"),
    outputs=", float key_all, float value_all",
    opset=23,
)
MANY = Spelling(f"y = com.microsoft.MultiHeadAttention <num_heads = {HEADS}, scale = 0.3> (q, k, v)")
RUNTIME_GROUPED = replace(
    STANDARD,
    body=f"y, key_all, value_all = com.microsoft.GroupQueryAttention <num_heads = {HEADS}, kv_num_heads = {SHARED},"
    " scale = 0.3> (q, k, v, past_key, past_value, lengths, total)",
    constants={"lengths": np.full(BATCH, ROWS + 2, np.int32), "total": np.array(ROWS + 3, np.int32)},
)
BY_HEAD = replace(
    PLAIN,
    body=PLAIN.body.replace("z = Mul (s, scale)", "m = Mul (s, scales)\n z = Add (m, mask)"),
    constants={**PLAIN.constants, "scales": random(HEADS, 1, 1, seed=4), "mask": CAUSAL},
)
"""As Swin v2 has it: a number a head."""
