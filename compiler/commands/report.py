"""Compare two builds by their lock files.

What they were made of, what came out, and which layers are stored otherwise.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse
from qcc.dsl.diagnostics.excerpt import escape

if TYPE_CHECKING:
    from qcc.compiler.report.builds.compare import BuildComparison, BuildDifference

EXAMPLES = """examples:
  qcc report old.qcc.lock new.qcc.lock                    what differs
  qcc report old.qcc.lock new.qcc.lock --format json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("before", metavar="A.lock", type=Path, help="a lock file that `qcc compile` wrote")
    add("after", metavar="B.lock", type=Path, help="another")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Compare."""
    with held_back():
        from qcc.compiler.report.builds.compare import as_json, compare_builds  # these load onnx

    found = compare_builds(args.before, args.after)
    if args.format == "json":
        terminal.write_json({**as_json(found), "diagnostics": []})
    else:
        _write(found)
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
