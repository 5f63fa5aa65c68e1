"""A Llama-like model of any size, with drawn weights in a data file beside it.

Weights are drawn once, a few million numbers with the tails that trained ones have, and every tensor takes them from
another place and with another spread, so that a model is made as fast as it can be written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

DRAWN = 1 << 24  # numbers that tensors are taken from
DEGREES_OF_FREEDOM = 6  # of Student's t: a few weights are far out
ALIGNMENT = 4096
LONGEST = 2048  # tokens that positions are known of
THETA = 10_000.0


@dataclass(frozen=True)
class Architecture:
    """The sizes of a model of grouped attention; ``key_heads`` divides ``heads``, ``heads`` the hidden size."""

    hidden: int
    layers: int
    inner: int
    heads: int
    key_heads: int
    vocabulary: int = 32_000

    @property
    def head(self) -> int:
        """Channels of a head."""
        return self.hidden // self.heads

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The large weights by name, stored ``[in, out]`` apart from the table of tokens."""
        keys = self.key_heads * self.head
        yield "embed", (self.vocabulary, self.hidden)
        for at in range(self.layers):
            yield f"layers.{at}.q", (self.hidden, self.hidden)
            yield f"layers.{at}.k", (self.hidden, keys)
            yield f"layers.{at}.v", (self.hidden, keys)
            yield f"layers.{at}.o", (self.hidden, self.hidden)
            yield f"layers.{at}.gate", (self.hidden, self.inner)
            yield f"layers.{at}.up", (self.hidden, self.inner)
            yield f"layers.{at}.down", (self.inner, self.hidden)
        yield "head", (self.hidden, self.vocabulary)

    @property
    def params(self) -> int:
        """Of the large weights."""
        return sum(int(np.prod(shape)) for _, shape in self.tensors())


SIZES = {
    "0.03B": Architecture(256, 4, 704, 8, 4, 32_000),
    "0.3B": Architecture(1024, 20, 2816, 16, 8),
    "1B": Architecture(2048, 22, 5632, 32, 4),
    "3B": Architecture(3072, 28, 8192, 24, 8),
    "7B": Architecture(4096, 32, 11008, 32, 32),
}

HEAD = """<ir_version: 10, opset_import: ["": 21]>
llama (int64[batch, tokens] input_ids) => (float[batch, tokens, {vocabulary}] logits)
<int64[1] last = {{-1}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, float two = {{2.0}}, float least = {{0.00001}},
 float never = {{-10000.0}}, float scale = {{{scale}}}, int64 start = {{0}}, int64 step = {{1}},
 int64[2] halves = {{{half}, {half}}}, int64[4] of_heads = {{0, 0, {heads}, {head}}},
 int64[4] of_keys = {{0, 0, {key_heads}, {head}}}, int64[5] repeated = {{1, 1, 1, {repeats}, 1}},
 int64[4] as_heads = {{0, 0, {heads}, {head}}}, int64[3] joined = {{0, 0, {hidden}}}, int64[1] third = {{3}}>
{{
    h0 = Gather (embed, input_ids)
    shape = Shape (input_ids)
    batch_size, count = Split <num_outputs = 2> (shape)
    length = Squeeze (count)
    at = Range (start, length, step)
    cos = Gather (cosines, at)
    sin = Gather (sines, at)
    square_shape = Concat <axis = 0> (count, count)
    all = Expand (never, square_shape)
    mask = Trilu <upper = 1> (all, step)
"""

BLOCK = """
    {p}sq = Pow ({x}, two)
    {p}ms = ReduceMean <keepdims = 1> ({p}sq, last)
    {p}me = Add ({p}ms, least)
    {p}rt = Sqrt ({p}me)
    {p}dv = Div ({x}, {p}rt)
    {p}n = Mul ({p}dv, {p}gain1)
    {p}q0 = MatMul ({p}n, {p}q)
    {p}k0 = MatMul ({p}n, {p}k)
    {p}v0 = MatMul ({p}n, {p}v)
    {p}q1 = Reshape ({p}q0, of_heads)
    {p}k1 = Reshape ({p}k0, of_keys)
    {p}v1 = Reshape ({p}v0, of_keys)
    {p}qa, {p}qb = Split <axis = 3> ({p}q1, halves)
    {p}qn = Neg ({p}qb)
    {p}qt = Concat <axis = 3> ({p}qn, {p}qa)
    {p}qc = Mul ({p}q1, cos)
    {p}qs = Mul ({p}qt, sin)
    {p}q2 = Add ({p}qc, {p}qs)
    {p}ka, {p}kb = Split <axis = 3> ({p}k1, halves)
    {p}kn = Neg ({p}kb)
    {p}kt = Concat <axis = 3> ({p}kn, {p}ka)
    {p}kc = Mul ({p}k1, cos)
    {p}ks = Mul ({p}kt, sin)
    {p}k2 = Add ({p}kc, {p}ks)
    {p}k3 = Unsqueeze ({p}k2, third)
    {p}k4 = Tile ({p}k3, repeated)
    {p}k5 = Reshape ({p}k4, as_heads)
    {p}v3 = Unsqueeze ({p}v1, third)
    {p}v4 = Tile ({p}v3, repeated)
    {p}v5 = Reshape ({p}v4, as_heads)
    {p}q6 = Transpose <perm = [0, 2, 1, 3]> ({p}q2)
    {p}k6 = Transpose <perm = [0, 2, 3, 1]> ({p}k5)
    {p}v6 = Transpose <perm = [0, 2, 1, 3]> ({p}v5)
    {p}s0 = MatMul ({p}q6, {p}k6)
    {p}s1 = Mul ({p}s0, scale)
    {p}s2 = Add ({p}s1, mask)
    {p}s3 = Softmax <axis = -1> ({p}s2)
    {p}a0 = MatMul ({p}s3, {p}v6)
    {p}a1 = Transpose <perm = [0, 2, 1, 3]> ({p}a0)
    {p}a2 = Reshape ({p}a1, joined)
    {p}a3 = MatMul ({p}a2, {p}o)
    {p}r = Add ({x}, {p}a3)
    {p}tq = Pow ({p}r, two)
    {p}ts = ReduceMean <keepdims = 1> ({p}tq, last)
    {p}te = Add ({p}ts, least)
    {p}tt = Sqrt ({p}te)
    {p}td = Div ({p}r, {p}tt)
    {p}m = Mul ({p}td, {p}gain2)
    {p}g0 = MatMul ({p}m, {p}gate)
    {p}g1 = Sigmoid ({p}g0)
    {p}g2 = Mul ({p}g0, {p}g1)
    {p}u0 = MatMul ({p}m, {p}up)
    {p}f0 = Mul ({p}g2, {p}u0)
    {p}f1 = MatMul ({p}f0, {p}down)
    {y} = Add ({p}r, {p}f1)
"""

TAIL = """
    fq = Pow ({x}, two)
    fs = ReduceMean <keepdims = 1> (fq, last)
    fe = Add (fs, least)
    ft = Sqrt (fe)
    fd = Div ({x}, ft)
    fn = Mul (fd, gain)
    logits = MatMul (fn, head)
}}
"""


def build(path: Path, size: Architecture) -> None:
    """Write a model and its data file.

    Args:
        path: of the model; the data lies beside it.
        size: of the model.
    """
    proto = onnx.parser.parse_model(_text(size))
    proto.graph.initializer.extend(_small(size))
    drawn = np.random.default_rng(0).standard_t(DEGREES_OF_FREEDOM, DRAWN).astype(np.float32)
    with path.with_suffix(".data").open("wb") as file:
        for at, (name, shape) in enumerate(size.tensors()):
            file.write(bytes(-file.tell() % ALIGNMENT))
            start, count = file.tell(), int(np.prod(shape))
            spread = np.float32(1 if name == "embed" else shape[0] ** -0.5)
            for part in _parts(drawn, count, at):
                (part * spread).tofile(file)
            proto.graph.initializer.append(_external(name.replace(".", "_"), shape, path, start, count * 4))
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _text(size: Architecture) -> str:
    words = {
        "vocabulary": size.vocabulary,
        "hidden": size.hidden,
        "half": size.head // 2,
        "heads": size.heads,
        "head": size.head,
        "key_heads": size.key_heads,
        "repeats": size.heads // size.key_heads,
        "scale": size.head**-0.5,
    }
    blocks = [BLOCK.format(p=f"layers_{at}_", x=f"h{at}", y=f"h{at + 1}") for at in range(size.layers)]
    return HEAD.format(**words) + "".join(blocks) + TAIL.format(x=f"h{size.layers}")


def _small(size: Architecture) -> Iterator[onnx.TensorProto]:
    """Gains, and what turns queries and keys by position."""
    gain = np.ones(size.hidden, np.float32)
    names = [f"layers_{at}_gain{one}" for at in range(size.layers) for one in (1, 2)]
    for name in (*names, "gain"):
        yield onnx.numpy_helper.from_array(gain, name)
    turns = np.arange(LONGEST)[:, None] * THETA ** (-np.arange(size.head // 2) / (size.head // 2))
    for name, function in (("cosines", np.cos), ("sines", np.sin)):
        table = np.tile(function(turns), 2).astype(np.float32)[:, None, :]
        yield onnx.numpy_helper.from_array(table, name)


def _parts(drawn: np.ndarray, count: int, at: int) -> Iterator[np.ndarray]:
    """So many numbers of those drawn, of each tensor from another place on."""
    start = at * 7_368_787 % len(drawn)
    while count:
        part = drawn[start : start + count]
        yield part
        count, start = count - len(part), 0


def _external(name: str, shape: tuple[int, ...], path: Path, offset: int, length: int) -> onnx.TensorProto:
    head = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
    head.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", path.with_suffix(".data").name), ("offset", offset), ("length", length)):
        head.external_data.add(key=key, value=str(value))
    return head
