"""A first policy for a model: what it is made of, what each format would come to, and rules to begin with."""

from collections.abc import Sequence
from dataclasses import dataclass

from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.plan.bind import bind
from qcc.compiler.plan.catalog import schema
from qcc.compiler.plan.costs import SIZE
from qcc.compiler.plan.plan import Plan
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.load import load_text
from qcc.dsl.syntax.format import format_source
from qcc.dsl.syntax.literals import quote
from qcc.ir.graph.ops import Kind, Weight

WIDEST = 100
TRIED = ("int8 channel", "int6 channel", "int4 group 32", "int3 group 32", "int2 group 32")
"""What sizes are told of."""
CANDIDATES = {
    Kind.LINEAR: "int{4,8} group 32",
    Kind.CONV: "int{4,6,8} channel",
    Kind.EMBEDDING: "int{4,8} group 32",
    Kind.RECURRENT: "int8 channel",
}
"""What the layers of each kind may become: what fits them, and loses little where data chooses."""
SMALL_SHARE = 1e-3
"""Of all weights' bytes: kernels of images and the like, which cost much and gain nothing."""


@dataclass(frozen=True)
class _Group:
    """The weights of one kind."""

    kind: Kind
    weights: tuple[Weight, ...]

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for one in self.weights)


def first_policy(model: OpenModel, data: str | None = None) -> str:
    """The text of a policy that fits a model, with comments that say what its lines come to.

    Args:
        model: the opened one.
        data: the name of a file of samples beside the policy, if there is one.

    Raises:
        QccError: no layer of the model has a weight.
    """
    groups = _groups(model.graph.weights())
    if not groups:
        raise QccError([Diagnostic("Q593", f"`{model.path}` has no layer with a weight: there is nothing to compress")])
    small = _small(groups)
    rules = [line for group in groups for line in _rule(group, model)]
    if small is not None:
        count, limit = small
        many = "layer is" if count == 1 else "layers are"
        rules += ["", f"# {count:,} {many} too small to gain anything", f"rule any[params < {limit}] {{ keep }}"]
    lines = [*_about(model, groups), "qpolicy 1", "", *_data(model, data), *rules, "", *_budget(model, rules)]
    return format_source("\n".join([*lines, "verify { cosine >= 0.98 }  # of the outputs, on the written file", ""]))


def _groups(weights: Sequence[Weight]) -> list[_Group]:
    """By the first kind that CANDIDATES know, in their order; rules overlap where a table is a head as well."""
    found = {kind: tuple(one for one in weights if kind in one.kinds) for kind in CANDIDATES}
    return [_Group(kind, listed) for kind, listed in found.items() if listed]


def _small(groups: Sequence[_Group]) -> tuple[int, int] | None:
    """How many weights are too small, and below how many numbers a weight is; None where none is."""
    weights = {one.name: one for group in groups for one in group.weights}
    total = sum(one.size_bytes for one in weights.values())
    limit = int(SMALL_SHARE * total / 4)
    limit = 1 << max(0, limit.bit_length() - 1)
    count = sum(one.params < limit for one in weights.values())
    return (count, limit) if 0 < count < len(weights) else None


def _about(model: OpenModel, groups: Sequence[_Group]) -> list[str]:
    """What the model is, and what it would come to in each format."""
    listed = ", ".join(f"{_layers(len(one.weights), one.kind)} ({_size(one.size_bytes)})" for one in groups)
    lines = [f"# {model.path.name}: {_size(model.size_bytes)}; {listed}.", "#"]
    lines.append("# The file, if all that can be is stored in one format:")
    for format in TRIED:
        size = _file_bytes(model, f"rule any {{ weights = {format} | float }}")
        if size is not None:
            lines.append(f"#   {format:<14} {_size(size):>9}  {size / model.size_bytes:6.1%}")
    return [
        *lines,
        "#",
        "# `qcc analyze` tells what each layer loses, `qcc sweep` what this policy would at every size.",
    ]


def _data(model: OpenModel, data: str | None) -> list[str]:
    names = ", ".join(f"`{value.name}`" for value in model.graph.inputs)
    arrays = "array" if len(model.graph.inputs) == 1 else "arrays"
    comment = f"# Samples: an .npz file beside this one with the {arrays} {names}"
    lines = _wrapped(f"{comment}, one sample a row.")
    if data is not None:
        return [*lines, f"calibrate {quote(data)} {{ samples = 128, seed = 0 }}", ""]
    told = "# Without them what is measured is measured on generated data, which may mislead."
    return [*lines, told, '# calibrate "samples.npz" { samples = 128, seed = 0 }', ""]


def _rule(group: _Group, model: OpenModel) -> list[str]:
    formats = CANDIDATES[group.kind]
    least = _least(_plan(model, f"rule {group.kind} {{ weights = {formats} }}"), group)
    lines = [f"# {_layers(len(group.weights), group.kind)}, {_size(group.size_bytes)}: {_size(least)} at the least"]
    settings = [f"weights = {formats}"]
    if group.kind is Kind.LINEAR:
        settings.append("rounding = gptq")
    return [*lines, f"rule {group.kind} {{ {'; '.join(settings)} }}"]


def _budget(model: OpenModel, rules: Sequence[str]) -> list[str]:
    """A size between what the rules can come to and what eight bits would be."""
    text = "\n".join(one for one in rules if not one.startswith("#"))
    least, most = _file_bytes(model, text), _file_bytes(model, "rule any { weights = int8 channel | float }")
    if least is None or most is None:
        return []
    middle = (least + max(most, least)) / 2
    share = min(100, int(100 * middle / model.size_bytes) + 1)
    told = f"# {_size(least)} is the least that these rules can come to"
    return [told, f"budget {{ size <= {share}% }}", "minimize output_error"]


def _file_bytes(model: OpenModel, rules: str) -> float | None:
    """The least that the written file would take; None where nothing can be chosen."""
    plan = _plan(model, rules)
    if plan is None or plan.allocate is None:
        return None
    fixed = plan.allocate.fixed.get(SIZE, 0.0)
    return fixed + sum(min(one.costs[SIZE] for one in option.candidates) for option in plan.allocate.options)


def _plan(model: OpenModel, rules: str) -> Plan | None:
    policy = load_text(f"qpolicy 1\n{rules}\nbudget {{ size <= 100% }}\n", schema(), "qcc init")
    try:
        return bind(policy, model.graph, model.size_bytes, Diagnostics())
    except QccError:
        return None


def _least(plan: Plan | None, group: _Group) -> float:
    """What the weights of a group take at the least; what cannot be stored otherwise stays."""
    options = {} if plan is None or plan.allocate is None else {one.subject: one for one in plan.allocate.options}
    total = 0.0
    for one in group.weights:
        costs = [found.costs[SIZE] for found in options[one.name].candidates] if one.name in options else []
        total += min(costs, default=float(one.size_bytes))
    return total


def _layers(count: int, kind: Kind) -> str:
    return f"{count:,} {kind} layer{'' if count == 1 else 's'}"


def _size(size_bytes: float) -> str:
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def _wrapped(comment: str) -> list[str]:
    """A comment on lines that are not too long."""
    lines, line = [], ""
    for word in comment.split():
        if line and len(line) + len(word) >= WIDEST:
            lines.append(line)
            line = "#"
        line = f"{line} {word}".strip()
    return [*lines, line]
