"""What an attention is made of, however its exporter spells it."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rotary:
    """A rotary embedding of queries or keys.

    Args:
        layout: which channels turn together: the two ``half``s of a head, or neighbours, ``interleaved``.
        width: how many channels of a head turn, from the first on.
        cos: the value that holds the cosines, and ``sin`` the sines.
        sin: see there.
        paired: both channels of a pair have one number in the tables, as a rotation has.
        earlier: rows of earlier runs turn with the others.
    """

    layout: str
    width: int
    cos: str
    sin: str
    paired: bool = True
    earlier: bool = False


@dataclass(frozen=True)
class Operand:
    """The queries, keys or values of an attention.

    Args:
        value: of which they are made by nothing but what is told here.
        heads: how many it holds.
        width: channels of a head.
        layout: of the value's axes, a letter each: batch, sequence, heads, d (channels); ``bs(hd)`` holds both in one;
            empty where it is none that has a name.
        rotary: what turns them.
        past: rows of earlier runs that stand in front of theirs; empty for none.
        present: those and theirs together, where the graph returns them.
        way: the values from the one that its product reads back to ``value``.
        stands: its product reads it as batch, heads, rows and channels.
    """

    value: str
    heads: int
    width: int
    layout: str
    rotary: Rotary | None = None
    past: str = ""
    present: str = ""
    way: tuple[str, ...] = field(default=(), compare=False)
    stands: bool = field(default=False, compare=False)

    @property
    def row_axis(self) -> int | None:
        """The axis of the value along which rows lie, counted from the last; None where the layout has no name."""
        letters = re.sub(r"\(\w+\)", "x", self.layout)
        return letters.index("s") - len(letters) if self.layout else None


@dataclass(frozen=True)
class Masking:
    """What is added to scores, or hides some.

    Args:
        value: its name; empty for what the op itself hides.
        kind: on the sample ``causal``, ``window``, ``open`` where it hides nothing, ``mask`` for others, or ``bias``.
        keeps: of a value of booleans: what is true is seen.
        scale: what is added is multiplied by it first.
        hides_later: on the sample no query sees a key that comes later.
        whole: on the sample it has a number for each query and key, and four axes.
        infinite: what booleans hide weighs nothing even where they hide all, else all weighs the same then.
    """

    value: str
    kind: str
    keeps: bool | None = None
    scale: float = 1.0
    hides_later: bool = False
    whole: bool = False
    infinite: bool = False


@dataclass(frozen=True)
class Attention:
    """A region that computes ``softmax(scale * queries keys' + bias) values``, head by head.

    Args:
        name: of the op that makes weights of scores.
        output: the value that the products with values make.
        queries: where they come from.
        keys: the same of keys.
        values: and of values.
        scale: what the products of queries and keys are multiplied by.
        masking: what is added to scores, or hides some.
        cap: scores stay under it by a hyperbolic tangent; None for no such bound.
        sinks: further scores, a number each head, that only weaken the others; empty for none.
        weights_read: others read the weights, too.
        shape: of the output, on the sample.
        result: the last value that holds the output and is made of it by moving numbers alone.
        stands: the output's axes are batch, heads, rows and channels.
        reads: the ops, with the positions, that read queries and keys as they are multiplied; empty where one input
            holds both.
        sums: the same of weights and values.
        scale_varies: with how many rows there are.
        head_scales: a value ``[..., heads, 1, 1]`` that scores are multiplied by beside; empty for none.
    """

    name: str
    output: str
    queries: Operand
    keys: Operand
    values: Operand
    scale: float
    masking: tuple[Masking, ...] = ()
    cap: float | None = None
    sinks: str = ""
    weights_read: bool = False
    shape: tuple[int, ...] = field(default=(), compare=False)
    result: Operand | None = field(default=None, compare=False)
    stands: bool = field(default=False, compare=False)
    reads: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    sums: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    scale_varies: bool = False
    head_scales: str = ""


@dataclass(frozen=True)
class NotAttention:
    """What looks like an attention and is none that can be told: by whose name, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class AttentionForm:
    """A way in which a graph may compute an attention."""


@dataclass(frozen=True)
class OneOp(AttentionForm):
    """As the one op that the standard has for it."""


@dataclass(frozen=True)
class ScaledByRows(AttentionForm):
    """As it is, with its scale times ``sqrt(log n / log usual)``, where ``n`` is how many keys there are.

    Where they are as many as usual that is one, and what is multiplied by it stays what it is, bit for bit.

    Args:
        usual: how many keys there were when the model was trained; at least 2.
        which: what is multiplied: 0 for queries, 1 for keys.
    """

    usual: int
    which: int = 0


@dataclass(frozen=True)
class DocumentsApart(AttentionForm):
    """Document by document; right only where its mask hides other documents, as ``sees_documents`` has it.

    Args:
        input: that tells the segment of each row.
    """

    input: str


@dataclass(frozen=True)
class BlockSparseScores(AttentionForm):
    """By the blocks of scores that hold most of their weight; right only where its mask hides what comes later.

    Args:
        block: rows of queries, and of keys, that meet as one.
        segment: rows within which keys are sorted, a multiple of that; a row sees its own segment whole.
        mass: the share of a block of queries' weight that is kept at least.
        masked: all scores are computed and what is left out is hidden: it says what is meant.
        rows: of each block of queries tell where its weight lies; 0 where the means of blocks do.
    """

    block: int
    segment: int
    mass: float
    masked: bool = False
    rows: int = 0
