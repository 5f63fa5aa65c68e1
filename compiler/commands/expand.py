"""Make a model again that was packed for transport: the same bytes, under the name that it had.

`qcc compile` writes such a file beside the model where the policy says `export { entropy = rans }`. Its codes take as
many bits as they are unlikely. It is for disks and networks: a runtime reads the model that this command makes of it,
and `qcc.Session` opens either.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.dsl.diagnostics.excerpt import escape

EXAMPLES = """examples:
  qcc expand model.qcc.rans               writes model.qcc.onnx beside it
  qcc expand model.qcc.rans -o models     into another folder
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("packed", metavar="FILE", type=Path, help="a .rans file that qcc wrote")
    add("-o", "--output", metavar="FOLDER", type=Path, help="where the model goes (default: beside FILE)")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Expand."""
    with held_back():  # modules in C do not stand being interrupted while they load
        from qcc.compiler import expand as driver
    done = driver.expand(args.packed, args.output)
    if args.format == "json":
        named = {name: str(one) if isinstance(one, Path) else one for name, one in asdict(done).items()}
        terminal.write_json({**named, "diagnostics": []})
    else:
        terminal.write_line(f"{escape(str(done.packed))} -> {escape(str(done.output))}\n{driver.told(done)}")
    return 0
