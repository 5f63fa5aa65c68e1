"""List the policies that come with qcc, or print one.

A preset is used by `-p NAME` on the command line and by `use "NAME"` in a policy.
"""

import argparse

from qcc.compiler.console import terminal
from qcc.dsl.load import preset_names, preset_source, preset_summary

EXAMPLES = """examples:
  qcc presets              what comes with qcc
  qcc presets balanced     the text of one, to start from
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="the preset to print")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """List or print."""
    names = preset_names() if args.name is None else (args.name,)
    listed = [(name, preset_summary(name)) for name in names]
    if args.format == "json":
        presets = [{"name": name, "summary": summary, "text": preset_source(name).text} for name, summary in listed]
        terminal.write_json({"presets": presets, "diagnostics": []})
    elif args.name is None:
        terminal.write(terminal.pairs(listed))
    else:
        terminal.write(preset_source(args.name).text)
    return 0
