"""Show what a policy would lose at every size that its formats allow.

The candidates of the policy are measured once, and each size is one solve of the allocator: the choice that is foreseen
to lose least within it. A law of loss by bits is fitted to the curve, with what it is off at points that it has not
seen, and the knee is told, from which on more bytes gain less. Only the smallest file is written, and not kept.
"""

import argparse
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.options.data import add_data, data_of
from qcc.compiler.commands.options.dims import add_dims, dims, whole_number
from qcc.compiler.commands.options.picture import add_picture, check_picture, write_picture
from qcc.compiler.commands.options.policy import add_policy, definitions
from qcc.compiler.console import terminal
from qcc.compiler.console.progress import progress
from qcc.compiler.plan.policy import load_policy
from qcc.dsl.diagnostics.report import Diagnostics

EXAMPLES = """examples:
  qcc sweep model.onnx -p tiny --data data.npz --sizes 8
  qcc sweep model.onnx -p my.qpolicy --format json
  qcc sweep model.onnx -p my.qpolicy --picture curve.svg
"""
FEWEST = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="an .onnx file, or a .pt2 file of torch.export")
    add_policy(parser)
    add("--sizes", metavar="N", default="8", help="points of the curve (default: 8)")
    add_data(parser, "samples")
    add_dims(parser)
    add_picture(parser, "the curve")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Sweep."""
    count, report = whole_number("--sizes", args.sizes, FEWEST), Diagnostics()
    check_picture(args.picture)
    policy = load_policy(args.policy, definitions(args), report=report)
    with held_back():
        from qcc.compiler.sweep.console import as_json, write_sweep  # these load onnx and the runtime
        from qcc.compiler.sweep.picture import draw
        from qcc.compiler.sweep.sweep import sweep

    with progress(args.format != "text") as update:
        found = sweep(args.model, policy, sizes=count, data=data_of(args), dims=dims(args), progress=update)
    write_picture(args.picture, draw(found))
    if args.format == "json":
        terminal.write_json({**as_json(found), "diagnostics": terminal.as_json(report.warnings)})
    else:
        write_sweep(found)
    terminal.report(report.warnings, args.format)
    return 0
