"""Look at a model and write a first policy for it, with comments that say what its lines come to.

Sizes are exact as far as the formats go; what is lost is not measured: `qcc analyze` and `qcc sweep` do that.
"""

import argparse
import os
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.console import terminal
from qcc.compiler.console.usage import UsageError
from qcc.compiler.files.staging import write_whole
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import SUFFIX

STDOUT = "-"
EXAMPLES = """examples:
  qcc init model.onnx                          writes model.qpolicy
  qcc init model.onnx --data samples.npz       with the samples that it is to go by
  qcc init model.onnx -o -                     on standard output
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="an .onnx file, or a .pt2 file of torch.export")
    add("-o", "--output", metavar="FILE", help=f"the policy (default: MODEL{SUFFIX} beside the model; - prints it)")
    add("--data", metavar="FILE.npz", type=Path, help="samples, in the policy's folder or below it")
    add("--force", action="store_true", help="write over a policy that is there")


def run(args: argparse.Namespace) -> int:
    """Write."""
    model: Path = args.model
    out = model.parent / f"{model.stem}{SUFFIX}" if args.output is None else Path(args.output)  # a folder has no name
    printed = args.output == STDOUT
    if args.output is not None and not printed and out.suffix != SUFFIX:
        raise UsageError(f"a policy ends in {SUFFIX}: `{out}`")
    if not printed and os.path.realpath(out) == os.path.realpath(model):
        raise UsageError(f"`{out}` is the model itself", "name an .onnx file, and with `-o` the policy to write")
    if not printed and not args.force and out.exists():
        help = "`--force` writes over it, `-o` names another"
        raise QccError([Diagnostic("Q594", f"`{out}` is there already", help=help)])
    with held_back():
        from qcc.compiler.draft.first_policy import first_policy  # these load onnx
        from qcc.compiler.files.open_model import open_model

    text = first_policy(open_model(model), _beside(args.data, Path() if printed else out.parent))
    if printed:
        terminal.write(text)
        return 0
    write_whole(out, text)
    terminal.write_line(f"wrote {escape(str(out))}")
    return 0


def _beside(data: Path | None, folder: Path) -> str | None:
    """The data's path as a policy in that folder names it."""
    if data is None:
        return None
    found = Path(os.path.relpath(data, folder))
    if ".." in found.parts:
        raise UsageError(f"a policy uses files of its own folder, and `{data}` is none of `{folder}`")
    if not data.is_file():
        raise QccError([Diagnostic("Q420", f"no such file: `{data}`")])
    return found.as_posix()
