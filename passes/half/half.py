"""Computing the whole graph in half precision."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from qcc.ir.errors import Refused
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import LAYER_KINDS
from qcc.passes.contract.contract import Context, Edit, Invariant, Pass, Phase
from qcc.passes.half.sides import Flowing, sides

Floats = Literal["fp16", "bf16"]
FLOAT32 = "float32"
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
OPSETS = {"fp16": 13, "bf16": 22}
NAMED = 3
WHOLE = ""  # the subject of what is told of all of the graph
BESIDE = "casts around them would cost more"


@dataclass(frozen=True)
class Half(Pass):
    """Compute the whole graph in fp16 or bf16; what it is fed and what it returns stay float32.

    Rewrite:
        y = f(x, W)  -->  y = Cast(f(Cast(x), W in half))

    Weights and all other constants that are not encoded are stored in half. An op stays in float32 where it would
    lose its numbers: it is run alone on samples, on what it reads and made to round what it reads and makes, and stays
    where that overflows or where its noise is 30 dB above what rounding a number makes. Where data is generated, so do
    softmax, norms, powers, exponentials and sums, unless a bound on what they see is known. Layers whose form computes
    in numbers of its own (`kernel`, `fused`, whole numbers) stay as they are, too.

    What is left has a choice, and where casts stand is a minimum cut: of all ways to do it, the fewest bytes go through
    memory.

    Args:
        floats: fp16 holds numbers up to 65,504 and is precise to 2^-11; bf16 has the range of float32 and is
            precise to 2^-8.

    Source: Mixed precision training, Micikevicius et al. 2018 (arXiv:1710.03740), section 3.
    """

    phase: ClassVar[Phase] = Phase.HALF
    keeps: ClassVar[frozenset[Invariant]] = frozenset()
    after: ClassVar[tuple[str, ...]] = ("encode",)

    floats: Floats

    @property
    def opset(self) -> int:
        """The lowest in which ops that are met often know the type."""
        return OPSETS[self.floats]

    @property
    def dtype(self) -> str:
        """Numpy's name of the type."""
        return DTYPES[self.floats]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Retype the ops that may be in half."""
        can = graph.castable(self.dtype)
        reasons = {op.name: _why_not(op.name, op.inputs, graph, context) for op in graph.ops() if op.name in can}
        free = {name for name, why in reasons.items() if not why}
        chosen = sides(_flowing(graph), free)
        if not chosen:
            count = f"{len(free):,} of {len(reasons):,} ops could compute in {self.floats}"
            raise Refused(f"{count}, and {BESIDE}" if free else f"no op of the model can compute in {self.floats}")
        computing = sum(op.name in chosen and bool(op.outputs) for op in graph.ops())
        casts = graph.cast(chosen, self.dtype)
        stay = {**{name: why for name, why in reasons.items() if why}, **dict.fromkeys(free - chosen, BESIDE)}
        first = f"{computing:,} of {len(reasons):,} ops compute in {self.floats}, between {casts:,} casts"
        return [Edit(WHOLE, first), *(Edit(WHOLE, line) for line in _lines(stay))]


def _why_not(name: str, inputs: Sequence[str], graph: Graph, context: Context) -> str:
    """Why an op stays in float32; empty if it need not."""
    if any(value in graph.encoded_values() for value in inputs):
        return "they read whole numbers"
    return context.halves.get(name, "they came with the encoding of weights")


def _lines(stay: Mapping[str, str]) -> Iterator[str]:
    """The ops that stay float32, reason by reason, the commonest first."""
    by_reason: dict[str, list[str]] = {}
    for name, why in stay.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        shown = ", ".join(f"`{name}`" for name in names[:NAMED])
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        yield f"{len(names):,} {'stays' if len(names) == 1 else 'stay'} float32, since {why}: {shown}{more}"


def _flowing(graph: Graph) -> Flowing:
    """The float32 values that flow between ops, with their sizes."""
    made = {name: op.name for op in graph.ops() for name in op.outputs if name and graph.value(name).dtype == FLOAT32}
    read: dict[str, list[str]] = {name: [] for name in made}
    weights, fixed = dict.fromkeys((op.name for op in graph.ops()), 0), set[str]()
    for op in graph.ops():
        constant = [name for name in op.inputs if name in fixed or graph.constant(name) is not None]
        if len(constant) == len([name for name in op.inputs if name]):
            fixed.update(op.outputs)  # decoded when a session starts, and cast then
        if op.kind in LAYER_KINDS:
            weights[op.name] = sum(_size(graph, name) for name in constant)
        for name in (one for one in op.inputs if one and one not in constant):
            if graph.value(name).dtype == FLOAT32:
                read.setdefault(name, []).append(op.name)
    read = {name: readers for name, readers in read.items() if name not in fixed}
    sizes = {name: _size(graph, name) for name in read}
    return Flowing(made, read, sizes, weights)


def _size(graph: Graph, name: str) -> int:
    """How many numbers a value holds, an axis of unknown size counting as one."""
    size = 1
    for one in graph.value(name).shape or ():
        size *= one if isinstance(one, int) else 1
    return max(size, 1)
