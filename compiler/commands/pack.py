"""Put models of one family into a folder in which each constant is stored once.

The folder gets the models under their names, small, and one data file that they read by offsets: plain ONNX
Runtime opens any of them. Constants of the same bytes are one. With --within, constants that are almost another are
that one, or are computed of it and a little more (a narrow product, a few numbers) when a session starts, as far as the
outputs stay that near to those of the model as it was: they are measured, on --data or on generated data. What is there
already is left as it is: a run that was stopped goes on when it is started again.
"""

import argparse
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.compiler.console.usage import UsageError
from qcc.dsl.diagnostics.excerpt import escape

EXAMPLES = """examples:
  qcc pack family base.onnx tuned.onnx               constants of the same bytes once
  qcc pack family base.onnx tuned.onnx --within 0.1%  those that are nearly the same, too
  qcc pack family --add another.onnx                 one more
  qcc pack family --check                            is it whole, and does every model load?
"""
MOST = 50.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="of the pack")
    add("models", metavar="MODEL", nargs="*", type=Path, help="an .onnx file")
    add("--add", action="store_true", help="add to a pack that is there")
    add("--check", action="store_true", help="see that a pack is whole, and write nothing")
    add("--within", metavar="SHARE", help="what outputs may be off by where constants are nearly the same: `0.1%%`")
    add("--data", metavar="FILE.npz", type=Path, help="what models are run on for --within (default: generated)")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Pack."""
    if args.check and (args.models or args.add or args.within or args.data):
        raise UsageError("`--check` takes the folder alone")
    if not args.check and not args.models:
        raise UsageError("no model to pack", "name the models, or `--check`")
    within = None if args.within is None else _share(args.within)
    if args.data is not None and within is None:
        raise UsageError("`--data` is for `--within`")
    with held_back():  # modules in C do not stand being interrupted while they load
        from qcc.compiler.pack import told
        from qcc.compiler.pack.pack import check_pack, pack
    if args.check:
        index = check_pack(args.folder)
        text, content = told.checked(index), told.as_json(index, ())
    else:
        done = pack(args.folder, args.models, add=args.add, within=within, data=args.data)
        text, content = told.packed(done), told.as_json(done.index, done.added)
    if args.format == "json":
        terminal.write_json({**content, "diagnostics": []})
    else:
        terminal.write_line(escape(text))
    return 0


def _share(text: str) -> float:
    try:
        found = float(text.removesuffix("%"))
    except ValueError:
        found = -1.0
    if not text.endswith("%") or not 0 <= found <= MOST:
        raise UsageError(f"`--within` takes a share of up to {MOST:g}%, as in `0.1%`, not `{text}`")
    return found / 100
