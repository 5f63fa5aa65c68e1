"""Search for values of a policy's parameters that lose less than its defaults, in files that are no larger.

Half of the data calibrates, a quarter chooses among the runs, and a quarter, on which nothing was chosen, judges the
choice beside the defaults: it beats them where it loses less there with 95 % confidence, else that is said. The first
third of the runs is drawn, those behind change the best so far.
"""

import argparse
import re
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.options.data import add_data, data_of
from qcc.compiler.commands.options.dims import whole_number
from qcc.compiler.commands.options.policy import add_policy, definitions
from qcc.compiler.console import terminal
from qcc.compiler.console.progress import progress
from qcc.compiler.console.usage import UsageError

RANGE = re.compile(r"(-?[\d.]+)\s*([%A-Za-z]*)\s*\.\.\s*(-?[\d.]+)\s*([%A-Za-z]*)")
EXAMPLES = """examples:
  qcc tune model.onnx -p my.qpolicy --over clip=mse,absmax --runs 20
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="an .onnx file")
    add_policy(parser)
    add_data(parser, "samples")
    help = "values of a parameter: `LOW..HIGH`, or words with commas between; may be repeated"
    add("--over", metavar="NAME=VALUES", action="append", default=[], help=help)
    add("--runs", metavar="N", default="20", help="compilations, beside that of the defaults (default: 20)")
    add("--seed", metavar="N", default="0", help="of the search (default: 0)")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Search."""
    runs, seed = whole_number("--runs", args.runs), whole_number("--seed", args.seed, 0)
    if not args.over:
        help = "`--over NAME=LOW..HIGH`, where the policy declares `param NAME = ...`"
        raise UsageError("nothing is to be tried", help)
    with held_back():
        from qcc.compiler.tune.console import as_json, write_tune  # these load onnx and the runtime
        from qcc.compiler.tune.space import Axis
        from qcc.compiler.tune.tune import tune

    axes = [Axis(*one) for one in map(_axis, args.over)]
    with progress(args.format != "text") as update:
        what = args.model, args.policy, axes, runs, data_of(args)
        found = tune(*what, definitions=definitions(args), seed=seed, progress=update)
    if args.format == "json":
        terminal.write_json({**as_json(found), "diagnostics": []})
    else:
        write_tune(found)
    return 0


def _axis(text: str) -> tuple[str, tuple[str, ...], float, float, str, bool]:
    name, equal, values = (part.strip() for part in text.partition("="))
    if not (name and equal and values):
        raise UsageError(f"`--over {text}` is not NAME=VALUES")
    found = RANGE.fullmatch(values)
    if found is None:
        words = tuple(dict.fromkeys(word.strip() for word in values.split(",") if word.strip()))
        if len(words) < 2:
            raise UsageError(f"`--over {text}` leaves no choice", "`LOW..HIGH`, or several words with commas between")
        return name, words, 0.0, 0.0, "", False
    try:
        low, high = float(found[1]), float(found[3])
    except ValueError as error:
        raise UsageError(f"`--over {text}` is not between two numbers") from error
    units = {found[2], found[4]} - {""}
    if not low < high or len(units) > 1:
        raise UsageError(f"`--over {text}` is no range: from the lower to the higher number, in one unit")
    return name, (), low, high, next(iter(units), ""), "." not in found[1] + found[3]
