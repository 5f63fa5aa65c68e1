"""Compare two builds by their lock files, or tell how errors came about in one.

What they were made of, what came out, and which layers are stored otherwise. With --propagation the model of one lock
is made again and run beside the original: of the noise in what each layer makes it tells what is its own, what it was
given and carries on, and what comes of both together, with what foretells the layers that lose most at the outputs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.options.data import add_data, data_of
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse
from qcc.compiler.console.progress import progress
from qcc.compiler.console.usage import UsageError
from qcc.dsl.diagnostics.excerpt import escape

if TYPE_CHECKING:
    from qcc.compiler.report.builds.compare import BuildComparison, BuildDifference

EXAMPLES = """examples:
  qcc report old.qcc.lock new.qcc.lock                    what differs
  qcc report old.qcc.lock new.qcc.lock --format json
  qcc report net.qcc.lock --propagation --data d.npz      where its errors come from
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("before", metavar="A.lock", type=Path, help="a lock file that `qcc compile` wrote")
    add("after", metavar="B.lock", nargs="?", type=Path, help="another")
    add("--propagation", action="store_true", help="of one lock: own, carried and interacting errors, layer by layer")
    help = "with --propagation: the model that was compiled (default: the one of the lock's name beside it)"
    add("--model", metavar="MODEL", type=Path, help=help)
    add("--no-losses", action="store_true", help="with --propagation: do not measure what layers lose at the outputs")
    add_data(parser, "with --propagation: samples, in place of those that the lock names")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Compare, or trace."""
    if args.propagation:
        return _propagation(args)
    if args.model or args.data or args.no_losses:
        raise UsageError("`--model`, `--data` and `--no-losses` are about `--propagation`")
    if args.after is None:
        raise UsageError("two locks are compared, and one is given", "`--propagation` is about one")
    with held_back():
        from qcc.compiler.report.builds.compare import as_json, compare_builds  # these load onnx

    found = compare_builds(args.before, args.after)
    if args.format == "json":
        terminal.write_json({**as_json(found), "diagnostics": []})
    else:
        _write(found)
    return 0


def _propagation(args: argparse.Namespace) -> int:
    """Trace errors in the model of a lock."""
    if args.after is not None:
        raise UsageError("`--propagation` is about one lock")
    with held_back():
        from qcc.compiler.propagation import console  # these load onnx and the runtime
        from qcc.compiler.propagation.trace import propagation
        from qcc.compiler.report.lock import read_lock

    lock = read_lock(args.before)
    model = args.model or args.before.with_name(lock.file)
    with progress(args.format != "text") as update:
        found = propagation(model, plan=lock, data=data_of(args), losses=not args.no_losses, progress=update)
    if args.format == "json":
        terminal.write_json({**console.as_json(found), "diagnostics": []})
    else:
        console.write_propagation(found)
    return 0


def _write(found: "BuildComparison") -> None:
    before, after = found.sizes
    share = f", {after / before:.1%}" if before else ""
    terminal.write_line(terminal.paint(f"{escape(str(found.before))} -> {escape(str(found.after))}", "bold"))
    terminal.write_line(f"\nsize  {before:,} -> {after:,} bytes{share}")
    sections = {"made of": found.made_of, "outputs": found.outcome, "layers": _collapsed(found.layers)}
    for title, listed in sections.items():
        if listed:
            terminal.write_line()
            columns = (Column(title, cut=True), Column("before"), Column("after"))
            terminal.write_table(Table(columns, tuple((one.name, one.before, one.after) for one in listed)))
    terminal.write_line()
    alike = f"{found.same:,} layer{' is' if found.same == 1 else 's are'} stored alike"
    terminal.write_text(alike if found.layers else f"{alike}: all of them")
    if not found.made_of:
        terminal.write_text("both were made of the same")
    if found.identical:
        terminal.write_text("the models are the same, byte for byte")
    elif not found.layers:
        terminal.write_text("the models differ nevertheless, in what is no layer's form")


def _collapsed(listed: "tuple[BuildDifference, ...]") -> "list[BuildDifference]":
    """Layers whose names differ in one number and that changed alike, as one."""
    kind = type(listed[0]) if listed else None
    parts = collapse(listed, lambda one: one.name, lambda one: (one.before, one.after))
    return [kind(name, members[0].before, members[0].after) for name, members in parts] if kind else []
