"""Show what a model is made of: where it comes from, its inputs and outputs, its ops by kind, and its weights.

Layers have the names that a policy's selectors match, as they are after cleaning; a selector may as well say what
another exporter would have called them. With --axes it shows instead which
channels are the same throughout the model, and whether they may be permuted, scaled and rotated (docs/axes.md).
With --attention it shows every attention, however its exporter spells it (docs/attention.md).
Of a checkpoint, a GGUF or safetensors file with what GPTQ and AWQ store in one, it tells how its tensors are stored,
and which formats of a policy store the same numbers. What hangs beside the layers and cannot be folded into them is
listed with the reason (docs/adapters.md).
"""

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcc.codegen.target.find import targets
from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.cli import DEMAND
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse, template
from qcc.compiler.console.usage import UsageError
from qcc.compiler.files.staging import write_whole
from qcc.dsl.diagnostics.excerpt import escape

if TYPE_CHECKING:
    from qcc.codegen.target.target import AnyTarget
    from qcc.compiler.files.open_model import OpenModel
    from qcc.ir.graph.ops import Value, Weight

EXAMPLES = """examples:
  qcc inspect model.onnx           layers with the names that selectors match
  qcc inspect model.onnx --axes    which channels belong together
  qcc inspect model.onnx --attention  every attention: heads, masks, rotary embeddings, earlier rows
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    files = "an .onnx file, a .pt2 file of torch.export, or a checkpoint: .gguf, .safetensors"
    add("model", metavar="MODEL", type=Path, help=files)
    add("--axes", action="store_true", help="show which channels are the same and what may be done to them")
    add("--attention", action="store_true", help="show every attention and what looks like one and is none")
    add("--group", metavar="GLOB", help="with --axes: show in full the groups of this name, or on layers of this name")
    help = "list where the file breaks the rules of an execution provider (docs/deployment.md); status 3 if it does"
    add("--provider", choices=tuple(_providers()), help=help)
    add("--picture", metavar="FILE", type=Path, help="with --axes: draw them into an .svg or .html file")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Inspect."""
    if not args.axes and (args.group is not None or args.picture is not None):
        raise UsageError(f"`--{'picture' if args.group is None else 'group'}` needs `--axes`")
    if args.picture is not None and args.picture.suffix not in (".svg", ".html"):
        raise UsageError(f"a picture ends in .svg or .html: `{args.picture}`")
    if sum(map(bool, (args.axes, args.attention, args.provider))) > 1:
        raise UsageError("`--axes`, `--attention` and `--provider` are questions of their own: ask one")
    with held_back():
        from qcc.compiler.files.open_model import open_model  # loads onnx
        from qcc.compiler.inspect.checkpoint import write_checkpoint
        from qcc.ir.checkpoint.read import read_checkpoint

    if not (args.axes or args.attention) and (found := read_checkpoint(args.model)) is not None:
        return write_checkpoint(args.model, found, args.format)
    model = open_model(args.model)
    if args.provider:
        return _provider(model, args)
    if args.axes:
        return _axes(model, args)
    if args.attention:
        return _attention(model, args.format)
    if args.format == "json":
        terminal.write_json({**_facts(model), "diagnostics": []})
    else:
        _write(model)
    return 0


def _axes(model: "OpenModel", args: argparse.Namespace) -> int:
    from qcc.compiler.inspect.console import axes_json, matching, write_axes, write_groups
    from qcc.compiler.inspect.picture import draw
    from qcc.compiler.inspect.survey import Survey  # loads networkx

    survey = Survey(model.graph)
    found = matching(survey, args.group) if args.group is not None else []
    if args.group is not None and not found:
        help = f"`qcc inspect {args.model} --axes` lists the groups; a name may hold `*`"
        raise UsageError(f"no group and no layer fits `{args.group}`", help)
    if args.picture is not None:
        write_whole(args.picture, draw(survey, model.path.name, html=args.picture.suffix == ".html"))
    if args.format == "json":
        terminal.write_json({**_facts(model), "axes": axes_json(survey), "diagnostics": []})
    elif found:
        write_groups(survey, found)
    elif args.picture is None:
        write_axes(survey)
    else:
        terminal.write_line(f"wrote {escape(str(args.picture))}")
    return 0


def _provider(model: "OpenModel", args: argparse.Namespace) -> int:
    found = _providers()[args.provider].faults((args.provider,), args.model)
    if args.format == "json":
        terminal.write_json({**_facts(model), "provider": args.provider, "faults": found, "diagnostics": []})
    else:
        for line in found or [f"as `{args.provider}` takes it, by its rules"]:
            terminal.write_line(escape(line))
    return DEMAND if found else 0


def _providers() -> dict[str, "AnyTarget"]:
    """The words that name an execution provider, with the targets that hold files to their rules."""
    return {word: one for one in targets().values() if one.one_word for word in one.words}


def _attention(model: "OpenModel", format: str) -> int:
    from qcc.compiler.inspect.attention import attentions_json, find_attentions, write_attentions  # runs the model

    found = find_attentions(model)
    if format == "json":
        terminal.write_json({**_facts(model), "attentions": attentions_json(found), "diagnostics": []})
    else:
        write_attentions(model, found)
    return 0


def _facts(model: "OpenModel") -> dict[str, Any]:
    from qcc.ir.regions.unfolded import unfolded_branches  # loads the vocabulary

    graph, origin = model.graph, model.model.origin
    return {
        "model": str(model.path),
        "bytes": model.size_bytes,
        "producer": origin.producer or None,
        **origin.versions,
        "metadata": dict(origin.notes),
        "inputs": [_value(value) for value in graph.inputs],
        "outputs": [_value(value) for value in graph.outputs],
        "ops": _kinds(model),
        "cleaned": list(model.edits),
        "weights": [_weight(weight, model) for weight in graph.weights()],
        "unfolded": [asdict(one) for one in unfolded_branches(graph)],
    }


def _value(value: "Value") -> dict[str, Any]:
    return {"name": value.name, "dtype": value.dtype, "shape": None if value.shape is None else list(value.shape)}


def _kinds(model: "OpenModel") -> dict[str, dict[str, int]]:
    """How many ops of each kind, and of each function within it; the most frequent first."""
    counts = Counter((op.kind.value, op.function) for op in model.graph.ops())
    totals: Counter[str] = Counter()
    for (kind, _), count in counts.items():
        totals[kind] += count
    return {
        kind: {function: count for (owner, function), count in counts.most_common() if owner == kind}
        for kind, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    }


def _weight(weight: "Weight", model: "OpenModel") -> dict[str, Any]:
    size = weight.size_bytes
    return {
        "name": weight.name,
        "kinds": sorted(weight.kinds),
        "shape": list(weight.view.shape),
        "dtype": weight.dtype,
        "given": weight.given.text if weight.given else None,
        "params": weight.params,
        "bytes": size,
        "share": size / model.size_bytes,
        "layers": [layer.name for layer in weight.layers],
        "also": list(weight.layers[0].names[1:]),
    }


def _write(model: "OpenModel") -> None:
    facts = _facts(model)
    rows = [
        ("model", f"{model.path}, {model.size_bytes:,} bytes"),
        ("producer", facts["producer"] or "unknown"),
        ("format", model.model.origin.format),
        *_named("inputs", [_typed(value) for value in model.graph.inputs]),
        *_named("outputs", [_typed(value) for value in model.graph.outputs]),
        *_named("ops", [_ops(kind, functions) for kind, functions in facts["ops"].items()]),
        *_named("cleaning", facts["cleaned"]),
        *_named("made by", [f"{key} {text}" for key, text in facts["metadata"].items() if key.startswith("qcc.")]),
    ]
    terminal.write(terminal.pairs(rows))
    if not facts["weights"]:
        terminal.write_line("\nno layer has a weight: there is nothing to compress")
        _write_reach(model)
        return
    terminal.write_line()
    terminal.write_table(_table(facts["weights"]))
    params, size = (sum(one[key] for one in facts["weights"]) for key in ("params", "bytes"))
    count = len(facts["weights"])
    total = f"{count:,} weight{'' if count == 1 else 's'}, {params:,} parameters, {size:,} bytes"
    terminal.write_line(f"\n{total}, {size / model.size_bytes:.1%} of the file")
    _write_reach(model)
    for one in facts["weights"]:
        if len(one["layers"]) > 1:
            terminal.write_line(escape(f"tied: {one['name']} is also {', '.join(one['layers'][1:])}"))
    _write_unfolded(facts["unfolded"])


def _write_unfolded(found: list[dict[str, Any]]) -> None:
    """What hangs beside the layers and is no part of their weights, and why; what is alike in one line."""
    if not found:
        return
    terminal.write_line("\nstays beside the layers whatever is folded:")
    alike = collapse(found, lambda one: one["name"], lambda one: (one["what"], template(one["reason"])))
    for name, ones in alike:
        count = f" ({len(ones):,})" if len(ones) > 1 else ""
        terminal.write_line(escape(f"  {ones[0]['what']} {name}{count}: {ones[0]['reason']}"))


def _write_reach(model: "OpenModel") -> None:
    from qcc.compiler.report.reach import reach  # loads the graph's adapter

    lines = reach(model.graph, model.size_bytes, note_bytes=model.model.note_bytes).lines
    terminal.write(terminal.pairs(_named("in reach", lines)))


def _named(title: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(title if at == 0 else "", line) for at, line in enumerate(lines)]


def _typed(value: "Value") -> str:
    sizes = (
        "of any shape" if value.shape is None else f"[{', '.join('?' if s is None else str(s) for s in value.shape)}]"
    )
    return f"{value.name} {value.dtype or 'unknown'} {sizes}"


def _ops(kind: str, functions: dict[str, int]) -> str:
    return f"{sum(functions.values()):,} {kind} ({', '.join(f'{name} {count}' for name, count in functions.items())})"


def _table(weights: list[dict[str, Any]]) -> Table:
    also = any(one["also"] for one in weights)
    columns = (
        Column("layer", cut=True),
        *([Column("also called", spare=3)] if also else []),
        Column("kind", spare=1),
        Column("shape"),
        Column("dtype", spare=2),
        *(Column(name, right=True) for name in ("params", "bytes", "share")),
    )
    rows = []
    for one in weights:
        tied = f" (tied, {len(one['layers'])} layers)" if len(one["layers"]) > 1 else ""
        shape = "x".join(map(str, one["shape"]))
        numbers = f"{one['params']:,}", f"{one['bytes']:,}", f"{one['share']:.1%}"
        names = one["name"], *(one["also"][:1] or [""] if also else [])
        rows.append((*names, "+".join(one["kinds"]) + tied, shape, one["given"] or one["dtype"], *numbers))
    return Table(columns, tuple(rows))
