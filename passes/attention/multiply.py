"""Rounding what attentions multiply."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.attention.find import attentions
from qcc.ir.encoding.value import DYNAMIC_INT8, EncodedValue, ValueEncoding
from qcc.ir.errors import Refused
from qcc.ir.forms.integers import INTEGERS
from qcc.ir.graph.attention import Attention, NotAttention
from qcc.ir.graph.edits import check_value
from qcc.ir.graph.form import Form
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Kind, Op
from qcc.ir.regions.flow import Flow
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.contract.subject import SubjectPass

VALUE_OPSET = 18  # of the ops that round by blocks
Reader = tuple[str, int]


@dataclass(frozen=True)
class Multiply(SubjectPass):
    """Round what an attention multiplies: queries with keys, and weights with values.

    Rewrite:
        MatMul(q, k')  -->  MatMul(DequantizeLinear(QuantizeLinear(q)), DequantizeLinear(QuantizeLinear(k')))

    With `static` steps ONNX Runtime makes of each such product one of integers. Both sides are bytes without a sign, of
    which it adds products in 32 bits on every processor. With `dynamic` it does so too, without data: rows of queries
    and of weights have each their step, and so have keys and, in each head, channels of values; the product is
    multiplied by both, once along its rows and once along its columns. That takes passes over all of the scores, which
    are wider than what makes them: where the machine may be timed, the report says what it comes to. With `blocks` the
    products stay those of floats. A provider (`target qdq`) gets them by its rules: bytes with a sign, results rounded
    as well. Scores, masks and softmax are left as they are. A product whose sides cannot both be
    rounded stays float; so does an attention that is one op, an Einsum, or none that is told. Steps a channel, a group
    or a place of a text are refused: they are for layers, whose weights take them. So are first tokens that stay float.

    Args:
        activations: how, as of layers: `static`, `static(range = mse)`, `dynamic`, `blocks(32)`.

    Source: integer attention, I-BERT, Kim et al. 2021 (arXiv:2101.01321), section 3.1; steps and ranges as of layers.
    """

    subjects: ClassVar[tuple[str, ...]] = ("attention",)
    wants: ClassVar[str] = "activations = static"
    learned: ClassVar[str] = "products of attentions"
    uses_sample: ClassVar[bool] = True

    activations: Annotated[Activations | None, "how what attentions multiply is rounded"] = None

    @property
    def label(self) -> str:
        """What is done."""
        return "products are rounded"

    @property
    def opset(self) -> int:
        """Of the ops that round."""
        return VALUE_OPSET

    @property
    def nothing(self) -> bool:
        """It says not how."""
        return self.activations is None

    @property
    def learns(self) -> bool:
        """Steps come from data."""
        return self.activations is not None and self.activations.when == "static"

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Round around the attentions of these names."""
        if self.activations is None:
            return []
        found = {one.name: one for one in attentions(graph, context.sample)}
        work = _Work(graph, Flow(graph), self.activations, context.form or INTEGERS, context)
        edits, wanted = list[Edit](), list[tuple[str, list[Reader]]]()
        for name in filter(context.takes, targets):
            one = found.get(name, NotAttention(name, "what was made of it before is no attention that is told"))
            reason = one.reason if isinstance(one, NotAttention) else work.fault(one)
            if reason or isinstance(one, NotAttention):
                edits.append(Edit(name, reason, refused=True, what="attention"))
                continue
            wanted += [(name, list(pair)) for pair in (one.reads, one.sums)]
        seen = work.seen([reader for _, pair in wanted for reader in pair])
        done = [(name, work.rounded(pair, seen)) for name, pair in wanted]
        return edits + list(_told(done))


@dataclass(frozen=True)
class _Work:
    """Rounding in a graph, whose ``flow`` is of before.

    Args:
        graph: is edited.
        flow: see above.
        how: what is multiplied is rounded.
        form: in which the target multiplies integers.
        context: of the pass.
    """

    graph: Graph
    flow: Flow
    how: Activations
    form: Form
    context: Context

    @property
    def encoding(self) -> ValueEncoding:
        """Of the sides of a product."""
        return self.how.encoding(self.form)

    def fault(self, one: Attention) -> str:
        """Why nothing is rounded in an attention; empty if something may be."""
        if self.encoding.float_tokens:
            return "products of first tokens are none of their own: `float_tokens` is for layers"
        if self.encoding.by_position or self.how.before() is not None:
            return "steps of channels or of places are for layers: `static` has one step for all, `dynamic` one a row"
        if not self.form.general and self.encoding.when == "dynamic":
            return "the target takes steps that are known before, as in `activations = static`"
        return "" if one.reads and one.sums else "one op is all of it"

    def rounded(self, pair: Sequence[Reader], seen: Mapping[str, Magnitudes]) -> "_Done":
        """Round both sides of a product."""
        op = self._op(pair[0])
        if self.encoding == DYNAMIC_INT8:
            return self._by_rows(op)
        if op.kind not in (Kind.MATMUL, Kind.LINEAR) or op.attributes.get("terms") or op.attributes.get("transposed"):
            return _Done("the runtime multiplies integers in products of matrices alone, as they stand")
        try:
            self._by_steps(pair, seen)
        except Refused as refused:
            if refused.broken:
                raise
            return _Done(refused.reason)
        return _Done()

    def _by_rows(self, op: Op) -> "_Done":
        """With steps that rows and columns find for themselves."""
        before = self.graph.copy() if self.context.race is not None else self.graph
        try:
            self.graph.multiply_rounded(op.outputs[0])
        except Refused as refused:
            return _Done(refused.reason)
        return _Done("", _share(before, self.graph, op, self.context))

    def _by_steps(self, pair: Sequence[Reader], seen: Mapping[str, Magnitudes]) -> None:
        """Round both sides of a product by steps of values, and where the target has it so what it makes.

        Raises:
            Refused: it cannot be done; nothing has changed.
        """
        places: list[tuple[str, list[Reader] | None]] = [
            (value, [reader]) for value, reader in (self._place(*one) for one in pair)
        ]
        places += [(name, None) for name in self._made(pair)]
        encoded = list[EncodedValue]()
        for value, _ in places:
            check_value(self.graph, value, self.encoding)
            if self.flow.constant(value) is not None:
                raise Refused(f"`{value}` is a constant")
            maker = self.flow.maker(value)
            fixed = None if maker is None else self.form.fixed(maker.kind, maker.function, self.encoding)
            if fixed is None:
                encoded.append(self.how.encoded(self.encoding, seen.get(value)))
            else:
                middle = self.encoding.grid.middle if self.encoding.signed else 0
                encoded.append(EncodedValue(self.encoding, np.float32(fixed[0]), fixed[1] + middle))
        for (value, readers), one in zip(places, encoded, strict=True):
            self.graph.encode_value(value, one, readers)

    def _op(self, reader: Reader) -> Op:
        return self.flow.ops[self.flow.position[reader[0]]]

    def _made(self, pair: Sequence[Reader]) -> tuple[str, ...]:
        """What a product makes, where the target wants that rounded, too."""
        return self._op(pair[0]).outputs[:1] if self.form.rounds_products else ()

    def _place(self, name: str, position: int) -> tuple[str, Reader]:
        """The value to round on one side of a product, and what reads it: by blocks, before its channels are moved."""
        value = self._op((name, position)).inputs[position]
        maker = self.flow.maker(value)
        if position and self.encoding.imitates and self.encoding.when == "dynamic" and maker and _turns(maker):
            return maker.inputs[0], (maker.name, 0)
        return value, (name, position)

    def seen(self, readers: Sequence[Reader]) -> Mapping[str, Magnitudes]:
        """How large the numbers are that are rounded; asked once."""
        rounded = {self._place(*reader)[0] for reader in readers}
        rounded.update(name for reader in readers for name in self._made([reader]))
        names = sorted(name for name in rounded if self.flow.constant(name) is None)
        context = self.context
        if self.how.when != "static" or context.watch is None or not names:
            return {}
        key = "products", tuple(names)
        if key not in context.found:
            sums: dict[str, Magnitudes] = {}
            for values in context.watch(self.graph, names, False):
                for name, array in values.items():
                    found = Magnitudes.of(array)
                    sums[name] = sums[name] + found if name in sums else found
            context.found[key] = sums
        known = context.found[key]
        assert isinstance(known, Mapping)
        return known


def _turns(op: Op) -> bool:
    """It lets another axis be the last."""
    order = op.attributes.get("perm")
    return op.kind is Kind.TRANSPOSE and isinstance(order, tuple) and bool(order) and order[-1] != len(order) - 1


@dataclass(frozen=True)
class _Done:
    """What became of a product: why it stays float, or what its time is as a share of before; zero if not known."""

    reason: str = ""
    share: float = 0.0


def _share(before: Graph, after: Graph, op: Op, context: Context) -> float:
    """The time of a product with what rounds its sides, on a sample of the data; asked once of those that are alike."""
    if context.race is None:
        return 0.0
    fed = [value.name for value in before.inputs]
    seen = None if context.watch is None else next(iter(context.watch(before, [*op.inputs], False)), None)
    made = seen or before.runner(fed, [*op.inputs])({name: context.sample[name] for name in fed})
    feeds = {name: made[name] for name in op.inputs}
    key = "products race", *(one.shape for one in feeds.values())
    if key not in context.found:
        one, other = (each.runner([*feeds], [op.outputs[0]]) for each in (after, before))
        context.found[key] = context.race(one, other, feeds)
    found = context.found[key]
    assert isinstance(found, float)
    return found


def _told(done: Sequence[tuple[str, _Done]]) -> Iterator[Edit]:
    """What became of the attentions, each of two products: why one of them stays float, or nothing."""
    for name in dict.fromkeys(name for name, _ in done):
        mine = [one for other, one in done if other == name]
        reasons = [one.reason for one in mine if one.reason]
        if len(reasons) == 2:
            yield Edit(name, f"its products stay float: {reasons[0]}", refused=True, what="attention")
            continue
        text = f"one of its products stays float: {reasons[0]}" if reasons else "both products are rounded"
        shares = [f"{one.share:.2f}x" for one in mine if one.share]
        text += f"; timed here, of the time of floats: {', '.join(shares)}" if shares else ""
        yield Edit(name, text, what="attention")
