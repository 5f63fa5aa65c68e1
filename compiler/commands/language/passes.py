"""List what a policy may name: passes, properties of rules with their methods, formats, targets and bounds.

With NAME the manual page of one of them.
"""

import argparse

from qcc.compiler.console import terminal
from qcc.compiler.editor.manual import ManualEntry, entries
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.spelling import did_you_mean

EXAMPLES = """examples:
  qcc passes               what a policy may name
  qcc passes gptq          a manual page
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="what to show the manual page of")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """List or show."""
    listed = entries()
    if args.name is not None:
        named = [entry for entry in listed if entry.name == args.name]
        listed = named or [entry for entry in listed if entry.value == args.name]
    if not listed:
        names = [name for entry in entries() for name in (entry.name, entry.value)]
        help = did_you_mean(args.name, names)
        raise QccError([Diagnostic("Q304", f"nothing is called `{args.name}`", help=help)])
    if args.format == "json":
        found = [{"section": e.section, "name": e.name, "summary": e.summary, "page": e.page()} for e in listed]
        terminal.write_json({"entries": found, "diagnostics": []})
    elif args.name is not None:
        terminal.write("\n".join(terminal.paragraphs(entry.page()) for entry in listed))
    else:
        _write_list(listed)
    return 0


def _write_list(listed: list[ManualEntry]) -> None:
    width = max(len(entry.name) for entry in listed)
    section = ""
    for entry in listed:
        if entry.section != section:
            terminal.write_line(("\n" if section else "") + terminal.paint(f"{entry.section}:", "bold"))
            section = entry.section
        terminal.write(terminal.pairs([(entry.name.ljust(width), entry.summary)], "  "))
    terminal.write_line("\n`qcc passes NAME` shows a manual page.")
