"""Write the policy that a configuration of another tool comes to: Olive, NNCF, ONNX Runtime or modelopt, in JSON.

An option that cannot be translated is named, in the policy and as a warning; none is dropped. docs/translate.md has a
table of what becomes of what.
"""

import argparse
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.compiler.console.usage import UsageError
from qcc.compiler.files.staging import write_whole
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import SUFFIX

EXAMPLES = """examples:
  qcc translate olive.json                        the policy on standard output
  qcc translate olive.json -o my.qpolicy          into a file
  qcc translate arguments.json --from onnxruntime
"""
TOOLS = ("olive", "nncf", "modelopt", "onnxruntime")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("config", metavar="CONFIG.json", type=Path, help="a configuration of another tool")
    add("--from", dest="tool", choices=TOOLS, help="whose it is (default: told by its keys)")
    add("-o", "--output", metavar="FILE", type=Path, help="the policy to write (default: standard output)")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Translate."""
    out: Path | None = args.output
    if out is not None and out.suffix != SUFFIX:
        raise UsageError(f"a policy ends in {SUFFIX}: `{out}`")
    if out is not None and out.exists():
        raise QccError([Diagnostic("Q594", f"`{out}` is there already", help="`-o` names another")])
    with held_back():
        from qcc.compiler.draft.translate import translate  # all that the language may name

    found = translate(args.config, args.tool)
    told = [_warning(one.path, one.value, one.reason) for one in found.left]
    if out is not None:
        write_whole(out, found.text)
    if args.format == "json":
        parts = {"left": found.left, "moot": found.moot}
        listed = {name: [vars(one) for one in part] for name, part in parts.items()}
        content = {"tool": found.tool, "policy": found.text, **listed}
        terminal.write_json({**content, "diagnostics": terminal.as_json(told)})
        return 0
    terminal.write(found.text if out is None else f"wrote {escape(str(out))}\n")
    terminal.report(told, args.format)
    return 0


def _warning(path: str, value: str, reason: str) -> Diagnostic:
    return Diagnostic("Q595", f"`{path}` is not translated: {value}", note=reason, severity=Severity.WARNING)
