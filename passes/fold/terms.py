"""What scales of channels do to one encoded weight: its error, that error roughly, and how it changes with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.rough import roughly
from qcc.ir.errors import Refused
from qcc.ir.graph.ops import Array

NORM = 8  # of a block's weights, a power of two: its step is about proportional to it
TINY = 1e-30


@dataclass(frozen=True)
class Term:
    """One weight that the scales ``t`` of some channels concern.

    Args:
        matrix: ``[out, in]``.
        encoding: what it will be stored in; None if nobody asks for its error.
        gram: of its inputs ``[in, in]``; None where rows are looked up and all columns count alike.
        channels: the channel of each column, or of each row; -1 where there is none.
        rowwise: channels lie on the rows.
        power: 1 where the matrix is multiplied by ``t``, -1 where it is divided.
        largest: the largest magnitude of each input ``[in]``, where a pass asks for it.
        parts: the Gram matrices of two parts of the data, one to search by and one to judge by, where there are two.
    """

    matrix: Array
    encoding: Blocked | None
    gram: Array | None
    channels: Array
    rowwise: bool = False
    power: int = 1
    parts: tuple[Array, Array] | None = None
    largest: Array | None = None

    @property
    def format(self) -> Blocked:
        """The encoding, which there is where the error is asked for."""
        assert self.encoding is not None
        return self.encoding

    @property
    def powers(self) -> Array:
        """The mean square of each input ``[in]``."""
        return np.ones(self.matrix.shape[1], np.float32) if self.gram is None else np.asarray(np.diag(self.gram))

    def factors(self, t: Array) -> Array:
        """What the matrix is multiplied by, ``[1, in]`` or ``[out, 1]``."""
        factors = np.asarray(np.append(t, 1.0)[self.channels] ** self.power, np.float32)
        return factors[:, None] if self.rowwise else factors[None]

    def energy(self, matrix: Array) -> float:
        """The mean square of what a matrix ``[out, in]`` gives, added up over its rows."""
        return float(np.vdot(matrix if self.gram is None else matrix @ self.gram, matrix))

    def error(self, t: Array) -> float:
        """Noise power over signal power of what it gives; infinite if the encoding cannot hold it."""
        factors = self.factors(t)
        try:
            decoded = encode(self.matrix * factors, self.format).decode()
        except Refused:
            return float("inf")
        signal = self.energy(self.matrix)
        return self.energy(decoded / factors - self.matrix) / signal if signal else 0.0

    def part(self, rows: Array) -> "Term":
        """Some rows, if these are independent; else all."""
        if self.rowwise or self.format.block.rows != 1:
            return self
        return replace(self, matrix=np.ascontiguousarray(self.matrix[rows]))


def input_sizes(terms: Sequence[Term], size: int) -> Array:
    """Root mean square of the channels ``[size]`` as the terms read them."""
    total, count = np.zeros(size + 1), np.zeros(size + 1)
    for term in terms:
        np.add.at(total, term.channels, term.powers)
        np.add.at(count, term.channels, 1)
    return np.asarray(np.sqrt(total / np.maximum(count, 1))[:size])


def column_sizes(terms: Sequence[Term], size: int) -> Array:
    """The largest weight of each channel ``[size]`` over all columns that read it."""
    largest = np.zeros(size + 1)
    for term in terms:
        np.maximum.at(largest, term.channels, np.abs(term.matrix).max(0, initial=0))
    return largest[:size]


def rough_error(term: Term, t: Array) -> float:
    """Noise power of what a term gives, by a quick rounding and as if errors of single weights never met.

    They meet by chance, the more so the fewer rows there are: the diagonal of the Gram matrix alone shows better what
    scales do.
    """
    factors = term.factors(t)
    scaled = term.matrix * factors
    error = (roughly(scaled, term.format) - scaled) / factors
    return float(np.einsum("ij,ij->j", error, error) @ term.powers)


def derivatives(term: Term, t: Array) -> tuple[Array, Array]:
    """How a term's estimated error falls, and how it grows, with the logarithm of each column's factor, or each row's.

    A block's step is about a norm of its weights, and its noise about the step squared times the sum of ``h / f^2``
    over its weights, where ``h`` is the mean square of the input and ``f`` what the weight is multiplied by. A larger
    factor saves in its own weight and costs all weights of the block.
    """
    block, shape = term.format.block, (term.matrix.shape[0], term.matrix.shape[1])
    factors = term.factors(t)
    counts = block.split(np.broadcast_to(term.powers / factors**2, shape))
    sizes = np.abs(block.split(term.matrix * factors))
    largest = sizes.max(1, keepdims=True, initial=0)
    share = sizes / (largest + TINY)
    for _ in range(NORM.bit_length() - 1):
        share *= share
    total = share.sum(1, keepdims=True) + TINY
    step = (largest * total ** (1 / NORM)) ** 2
    share *= step * counts.sum(1, keepdims=True) / total
    axis = 1 if term.rowwise else 0
    return block.join(counts * step, shape).sum(axis), block.join(share, shape).sum(axis)
