"""Tell everything that is wrong with a policy.

Calibration data that is not there and a budget below what the formats can reach are seen, too. With --model also
whether the policy fits that model: selectors that match nothing, formats that a layer cannot take.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.options.policy import add_definitions, definitions
from qcc.compiler.console import terminal
from qcc.compiler.editor.known import known_schema
from qcc.dsl.check.reach import check_reach
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.fixes import Judge, with_fixes
from qcc.dsl.load import faults, load_policy, load_text, preset_names
from qcc.dsl.policy.policy import Policy
from qcc.dsl.policy.schema import Schema

STDIN = "-"

EXAMPLES = """examples:
  qcc check my.qpolicy                       what is wrong with it
  qcc check my.qpolicy --model model.onnx    whether it fits a model, too
  qcc check - < my.qpolicy                   from standard input
  qcc check my.qpolicy --format sarif        for code scanning, with what ends each diagnostic
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("policies", metavar="POLICY", nargs="+", help="a .qpolicy file, a preset, or - for standard input")
    add("--model", metavar="MODEL", type=Path, help="an .onnx or .pt2 file that the policies must fit")
    add_definitions(parser)
    add("--format", choices=("text", "json", "github", "sarif"), default="text", help="how to print (default: text)")
    add("-q", "--quiet", action="store_true", help="print nothing but errors and warnings")


def run(args: argparse.Namespace) -> int:
    """Check."""
    found: list[Diagnostic] = []
    accepted: list[str] = []
    for name in args.policies:
        diagnostics, summary = _check(name, args)
        found += diagnostics
        if summary:
            accepted.append(f"{name}: {summary}")
    failed = any(one.severity is Severity.ERROR for one in found)
    if args.format == "json":
        terminal.write_json({"ok": not failed, "diagnostics": terminal.as_json(found)})
        return int(failed)
    if not args.quiet and args.format != "sarif":
        for line in accepted:
            terminal.write_line(escape(line))
    terminal.report(found, args.format)
    return int(failed)


def _check(name: str, args: argparse.Namespace) -> tuple[list[Diagnostic], str]:
    """What is wrong with a policy; if nothing is, what it says in a few words."""
    report = Diagnostics()
    try:
        policy = _load(name, _schema(args), definitions(args), report)
        summary = f"ok, {_count(len(policy.rules), 'rule')}"
        check_reach(policy, report)
        report.raise_if_errors()
        if args.model is not None:
            summary += f"; {_bound(policy, args.model, report)}"
    except QccError as error:
        return _fixed(list(dict.fromkeys((*report.warnings, *error.diagnostics))), name, args), ""
    return _fixed([*report.warnings], name, args), summary


def _schema(args: argparse.Namespace) -> Schema:
    """With the passes themselves where a model is to be seen by them."""
    if args.model is None:
        return known_schema()
    with held_back():
        from qcc.compiler.plan.catalog import schema
    return schema()


def _load(name: str, schema: Schema, given: dict[str, str], report: Diagnostics) -> Policy:
    if name != STDIN:
        return load_policy(name, schema, given, report=report)
    return load_text(sys.stdin.read(), schema, "<stdin>", Path(), given, report=report)


def _fixed(found: list[Diagnostic], name: str, args: argparse.Namespace) -> list[Diagnostic]:
    """Diagnostics with what ends them, for formats that have room for it."""
    if not found or args.format not in ("json", "sarif") or name in preset_names():
        return found
    sources = {one.span.source for one in found if one.span is not None and one.span.source.name in (name, "<stdin>")}
    for source in sources:
        root = Path(name).parent if name != STDIN else Path()
        found = with_fixes(found, source, _judge(source, root, definitions(args)))
    return found


def _judge(source: Source, root: Path, given: dict[str, str]) -> Judge:
    return lambda text: faults(replace(source, text=text), known_schema(), root, given)[1]


def _bound(policy: Policy, path: Path, report: Diagnostics) -> str:
    with held_back():
        from qcc.compiler.build.open_adapted import open_adapted  # these load onnx
        from qcc.compiler.plan.bind import bind
        from qcc.compiler.plan.plan import weight_options

    model = open_adapted(path, policy)
    plan = bind(policy, model.graph, model.size_bytes, report)
    report.raise_if_errors()
    encoded = sum(len(step.weights) for step in plan.steps)
    open_options = len(weight_options(plan))
    return f"of the layers of {path}, {encoded} encoded, {open_options} left to the allocator, {len(plan.kept)} kept"


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")
