"""Lay policies out: one statement or setting a line, aligned, comments where they were.

Files are rewritten in place, each whole or not at all; `-` reads standard input and writes standard output. With
--check or --diff nothing is rewritten; with --check the exit status is 1 if anything would be.
"""

import argparse
import difflib
import sys
from dataclasses import dataclass
from pathlib import Path

from qcc.compiler.console import terminal
from qcc.compiler.files.staging import write_whole
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.syntax.format import format_source
from qcc.dsl.syntax.parse import load_source

STDIN = "-"

EXAMPLES = """examples:
  qcc fmt my.qpolicy            lay a policy out in place
  qcc fmt --check policies/*    tell which are not laid out
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="a .qpolicy file, or - for standard input")
    add("--check", action="store_true", help="only tell which files would change")
    add("--diff", action="store_true", help="only show what would change")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


@dataclass(frozen=True)
class _Layout:
    """A file's text as it is and as it should be."""

    name: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def diff(self) -> str:
        names = f"{self.name}", f"{self.name} (formatted)"
        lines = difflib.unified_diff(self.before.splitlines(True), self.after.splitlines(True), *names)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def run(args: argparse.Namespace) -> int:
    """Format."""
    layouts: list[_Layout] = []
    found: list[Diagnostic] = []
    for name in args.files:
        try:
            layouts.append(_layout(name))
        except QccError as error:
            found += error.diagnostics
    rewrite = not (args.check or args.diff)
    for one in layouts:
        if rewrite and one.changed and one.name != STDIN:
            write_whole(Path(one.name), one.after)
    if args.format == "json":
        _write_json(layouts, found, args)
    else:
        for one in layouts:
            _write(one, args, rewrite)
        terminal.report(found, "text")
    return int(bool(found) or (args.check and any(one.changed for one in layouts)))


def _layout(name: str) -> _Layout:
    text = sys.stdin.read() if name == STDIN else load_source(name).text
    return _Layout(name, text, format_source(text, "<stdin>" if name == STDIN else name))


def _write(one: _Layout, args: argparse.Namespace, rewrite: bool) -> None:
    if args.diff:
        terminal.write(one.diff)
    elif rewrite and one.name == STDIN:
        terminal.write(one.after)
    if one.changed and (args.check or (rewrite and one.name != STDIN)):
        terminal.note(f"{'would reformat' if args.check else 'reformatted'} {escape(one.name)}")


def _write_json(layouts: list[_Layout], found: list[Diagnostic], args: argparse.Namespace) -> None:
    files = []
    for one in layouts:
        entry: dict[str, object] = {"file": one.name, "changed": one.changed}
        if args.diff:
            entry["diff"] = one.diff
        if one.name == STDIN:
            entry["text"] = one.after
        files.append(entry)
    terminal.write_json({"files": files, "diagnostics": terminal.as_json(found)})
