"""Make a model smaller that was compiled with `weights = stack(8)`: no data, no model but the file, and a second.

A weight that is stored as a stack is a sum of levels. The file says in which order they matter, as it was measured when
it was compiled; the last ones are left out until the file takes no more than --size. The same bytes come out as with
`export { trim = SIZE }` in the policy. What is written can be trimmed again. Without --size it tells what can be had.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.compiler.console.byte_size import SizeError, byte_size
from qcc.compiler.console.usage import UsageError
from qcc.dsl.diagnostics.excerpt import escape

EXAMPLES = """examples:
  qcc trim model.qcc.onnx                                   from which size to which
  qcc trim model.qcc.onnx --size 45MiB -o small.qcc.onnx    as much of it as fits
  qcc trim model.qcc.onnx --size 60%                        of what it takes
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="an .onnx file that qcc wrote")
    add("--size", metavar="SIZE", help="what it may take at most: `45MiB`, or a share of what it takes: `60%%`")
    add("-o", "--output", metavar="FILE", type=Path, help="the file to write (default: MODEL.trimmed.qcc.onnx)")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Trim."""
    size = None if args.size is None else _size(args.size)
    if size is None and args.output is not None:
        raise UsageError("`-o` needs a size: `--size 45MiB`")
    with held_back():  # modules in C do not stand being interrupted while they load
        from qcc.compiler import trim as driver
    if size is None:
        found = driver.sizes(args.model)
        if args.format == "json":
            terminal.write_json({**asdict(found), "diagnostics": []})
        else:
            terminal.write_line(f"{found.smallest:,} to {found.largest:,} bytes, in {found.levels:,} steps")
        return 0
    most, share = size
    if share:
        most *= driver.sizes(args.model).largest
    done = driver.trim(args.model, most, args.output)
    if args.format == "json":
        named = {name: str(one) if isinstance(one, Path) else one for name, one in asdict(done).items()}
        terminal.write_json({**named, "diagnostics": []})
    else:
        terminal.write_line(f"{escape(str(done.model))} -> {escape(str(done.output))}\n{driver.told(done)}")
    return 0


def _size(text: str) -> tuple[float, bool]:
    try:
        return byte_size(text, shares=True)
    except SizeError as error:
        raise UsageError(f"`--size`: {error}", error.help) from error
