"""Say what a diagnostic means, or what a policy does to each layer of a model, and why.

`qcc explain Q202` prints a diagnostic's page. `qcc explain MODEL` shows, for each weight, every property with the place
in the policy that set it, the formats that it may get with the bytes they would take, or why it is kept. Nothing is
measured or written.
"""

import argparse
import re
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.options.policy import add_policy, definitions
from qcc.compiler.console import terminal
from qcc.compiler.console.usage import UsageError
from qcc.dsl.diagnostics.pages import explain_code, page

CODE = re.compile(r"[Qq]\d{1,4}")

EXAMPLES = """examples:
  qcc explain Q202                           what a diagnostic means
  qcc explain model.onnx -p my.qpolicy       what a policy does to each layer, and why
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("subject", metavar="CODE|MODEL", help="a diagnostic's code, or an .onnx or .pt2 file")
    add("layers", metavar="LAYERS", nargs="?", help="only the layers whose names match, such as '*/ffn/*'")
    add_policy(parser)
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Explain."""
    if CODE.fullmatch(args.subject):
        return _code(args)
    with held_back():
        from qcc.compiler.report.explain import explain_layers  # loads onnx

    return explain_layers(Path(args.subject), args.policy, definitions(args), args.layers, args.format)


def _code(args: argparse.Namespace) -> int:
    if args.layers is not None:
        raise UsageError(f"a diagnostic has no layers: `{args.layers}`")
    text = explain_code(args.subject)
    if args.format == "json":
        one = page(args.subject)
        terminal.write_json({"code": one.code, "name": one.name, "text": text, "diagnostics": []})
    else:
        terminal.write(terminal.paragraphs(text))
    return 0
