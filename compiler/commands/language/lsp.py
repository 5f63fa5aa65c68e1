"""Serve an editor: diagnostics as one types, completion, manual pages, definitions, names, layout and fixes.

It speaks the language server protocol on standard input and output, and is started by the editor (docs/editors.md).
With --model, or the option `model` of the client, each rule tells how many layers of that model it matches.
"""

import argparse
import sys
from pathlib import Path

from qcc.compiler.editor.rpc import BrokenStreamError
from qcc.compiler.editor.server import Server
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError

EXAMPLES = """examples:
  qcc lsp                       what an editor starts
  qcc lsp --model model.onnx    count the layers that each rule matches
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--model", metavar="MODEL", type=Path, help="an .onnx or .pt2 file whose layers are counted")
    parser.add_argument("--stdio", action="store_true", help="use standard input and output, as always")


def run(args: argparse.Namespace) -> int:
    """Serve."""
    try:
        return Server(sys.stdin.buffer, sys.stdout.buffer, args.model).run()
    except BrokenStreamError as error:
        help = "`qcc lsp` is started by an editor; `qcc check` takes a policy"
        message = f"standard input holds no messages of the language server protocol: {error}"
        raise QccError([Diagnostic("Q591", message, help=help)]) from None
