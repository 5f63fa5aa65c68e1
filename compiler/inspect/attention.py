"""What `qcc inspect --attention` prints: every attention of a model, and what looks like one and is none."""

from dataclasses import asdict
from typing import Any

from qcc.compiler.calibrate.fit_samples import fit_samples
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.files.open_model import OpenModel
from qcc.dsl.diagnostics.excerpt import escape
from qcc.ir.attention.find import attentions
from qcc.ir.graph.attention import Attention, NotAttention, Operand

SAMPLES, SEED = 3, 0
COLUMNS = (
    Column("attention", cut=True),
    Column("queries from", spare=2),
    Column("heads"),
    Column("width", right=True),
    Column("scale", right=True, spare=3),
    Column("rotary"),
    Column("scores", spare=1),
    Column("earlier rows"),
)
Found = list[Attention | NotAttention]


def find_attentions(model: OpenModel) -> Found:
    """The attentions of a model, on inputs that are generated.

    Raises:
        ModelError: none can be generated on which it runs.
    """
    samples = fit_samples(model.graph, model.model.reference(), SAMPLES, SEED)
    return attentions(model.graph, samples.batches[0])


def write_attentions(model: OpenModel, found: Found) -> None:
    """Print them."""
    told = [one for one in found if isinstance(one, Attention)]
    others = [one for one in found if isinstance(one, NotAttention)]
    if told:
        makers = {layer.output: layer.name for weight in model.graph.weights() for layer in weight.layers}
        terminal.write_table(Table(COLUMNS, tuple(_row(one, makers) for one in told)))
        terminal.write_line()
    for one in others:
        terminal.write_line(escape(f"refused: {one.name}: {one.reason}"))
    count = f"{len(told):,} attention{'' if len(told) == 1 else 's'}"
    terminal.write_line(f"{count}, {len(others):,} refused" if found else "no softmax is multiplied with values")


def attentions_json(found: Found) -> list[dict[str, Any]]:
    """All that is known of them."""
    return [asdict(one) for one in found]


def _row(one: Attention, makers: dict[str, str]) -> tuple[str, ...]:
    queries, keys, values = one.queries, one.keys, one.values
    heads = f"{queries.heads}" if queries.heads == keys.heads else f"{queries.heads} of {keys.heads}"
    width = f"{keys.width}" if keys.width == values.width else f"{keys.width}, {values.width}"
    source = makers.get(queries.value, queries.value)
    return one.name, source, heads, width, f"{one.scale:.4g}", _rotary(queries), _scores(one), _state(one)


def _rotary(operand: Operand) -> str:
    rotary = operand.rotary
    return "-" if rotary is None else f"{rotary.layout} {rotary.width}"


def _scores(one: Attention) -> str:
    """What is done to scores."""
    words = [masking.kind for masking in one.masking]
    words += [f"cap {one.cap:g}"] if one.cap else []
    words += ["sinks"] if one.sinks else []
    words += ["weights read"] if one.weights_read else []
    return ", ".join(words) or "-"


def _state(one: Attention) -> str:
    """Where rows of earlier runs come from."""
    return f"{one.keys.past}, {one.values.past}" if one.keys.past else "-"
