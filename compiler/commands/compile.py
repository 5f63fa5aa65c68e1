"""Make a model smaller, as a policy says.

Without a policy the preset `balanced` is taken. Beside the model go a lock file, from which --plan repeats the run, and
an HTML report; --plan takes the text of a plan as well. If the policy's `verify` fails, nothing is written and the exit
status is 3, as for a budget that cannot be met. With --keep-failed the files are written all the same, as
MODEL.failed.qcc.onnx and so on.

--emit prints a stage of the compilation and stops there: `ast` is the policy as parsed, `policy` as checked (neither
needs a model), `plan` what would be done to each weight, with all that is left open decided. Where the policy's target
has kernels, `tir` is the code of those that would be built, as TVM has it before it lowers it, and `asm` what LLVM
makes of it, for each target function by function. Nothing is written.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qcc.codegen.target.find import kernel_stages, spelled_native
from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.cli import DEMAND
from qcc.compiler.commands.options.data import add_data, data_of
from qcc.compiler.commands.options.dims import add_dims, dims
from qcc.compiler.commands.options.policy import DEFAULT_POLICY, add_policy, definitions
from qcc.compiler.console import terminal
from qcc.compiler.console.progress import progress
from qcc.compiler.console.usage import UsageError
from qcc.compiler.plan.policy import load_policy
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.load import open_source
from qcc.dsl.policy.policy import to_text as policy_text
from qcc.dsl.syntax.parse import parse
from qcc.dsl.syntax.tree import to_text as tree_text

if TYPE_CHECKING:
    from qcc.compiler.plan.plan import Plan, PlanFile
    from qcc.dsl.policy.policy import Policy

STAGES = ("ast", "policy", "plan")
"""Of every compilation; targets have stages of their kernels."""

LONG_BYTES = 1 << 28
"""Of files about which it is told beforehand what they take."""

EXAMPLES = """examples:
  qcc compile model.onnx                            eight bits a weight, no data needed
  qcc compile model.onnx -p tiny --data data.npz    as small as it gets, measured on data
  qcc compile model.onnx -p my.qpolicy -D bits=4    with a parameter of the policy
  qcc compile model.onnx -p my.qpolicy --emit plan  what would be done to each weight
  qcc compile model.onnx --plan model.qcc.lock      the same again
  qcc compile model.onnx --plan model.plan          a plan that --emit plan printed, edited or not
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", type=Path, help="an .onnx file, or a .pt2 file of torch.export")
    add_policy(parser, default=None)
    add(
        "-o",
        "--output",
        metavar="OUT",
        type=Path,
        help="the file to write (default: MODEL.qcc.onnx or .pt2 beside the model); .onnx exports a .pt2 model first",
    )
    add_data(parser)
    help = "what `drop(...)` is measured by: a script that defines `evaluate(run)`, or samples with an array `labels`"
    add("--evaluate", metavar="FILE", type=Path, help=help)
    add_dims(parser)
    help = "a JSON file of energies in place of the table that ships, for `energy`; see `qcc explain Q660`"
    add("--energy", metavar="FILE", type=Path, help=help)
    add("--plan", metavar="FILE", type=Path, help="do what a plan says, of a lock or as text, not the policy's rules")
    help = "print what it would take in seconds, memory and disk, from parts that are tried, and stop there"
    add("--estimate", action="store_true", help=help)
    add("--keep-failed", action="store_true", help="write a model whose verification fails, under a name that tells it")
    add("--jobs", metavar="N", type=int, default=1, help="processes that run the model on data (default: 1)")
    help = "workers in place of them, by Dask: `local:N` or `tcp://HOST:PORT`"
    add("--cluster", metavar="ADDRESS", help=help)
    add("--emit", choices=(*STAGES, *kernel_stages()), help="print this stage and stop")
    add("--format", choices=("text", "json", "github"), default="text", help="how to print (default: text)")
    add("-q", "--quiet", action="store_true", help="print nothing but errors and warnings")
    add("-v", "--verbose", action="store_true", help="list every layer, however many there are")


def run(args: argparse.Namespace) -> int:
    """Compile."""
    if args.emit in ("ast", "policy"):
        return _emit_policy(args)
    if args.jobs < 1:
        raise UsageError(f"`--jobs` is at least 1, not {args.jobs}")
    if args.model is None:
        raise UsageError("no model is given", "`qcc compile MODEL`, where MODEL is an .onnx file")
    if args.estimate:
        return _estimate(args)
    with held_back():
        from qcc.compiler import compile as driver  # these load onnx and the runtime
        from qcc.compiler.report import console as report_console
        from qcc.compiler.report.failures import failed_bounds
        from qcc.compiler.report.json import as_json
        from qcc.compiler.report.lock import Lock, policy_sha256, read_plan

    plan = read_plan(args.plan) if args.plan else None
    report = Diagnostics()
    policy = _policy(args, plan, report)
    if isinstance(plan, Lock) and plan.policy != policy_sha256(policy):
        help = "give the policy that the plan was made of with -p: verify and export come from it"
        report.warning("Q433", f"`{args.plan}` was made of another policy than `{args.policy}`", help=help)
    if args.emit and args.emit not in STAGES:
        return _emit_kernels(policy, plan, report, args)
    sizes = dims(args)
    _tell_before(args, plan)
    with progress(args.quiet or args.format != "text") as update:
        given = {"data": data_of(args), "evaluate": args.evaluate, "plan": plan, "dims": sizes, "progress": update}
        given["energy"] = args.energy
        if args.emit == "plan":
            decided, _, warnings = driver.decide_plan(args.model, policy, output=args.output, **given)
        else:
            result = driver.compile(
                args.model,
                policy,
                output=args.output,
                keep_failed=args.keep_failed,
                jobs=args.cluster or args.jobs,
                **given,
            )
    if args.emit == "plan":
        return _emit_plan(decided, [*report.warnings, *warnings], args)
    diagnostics = (*report.warnings, *result.warnings, *failed_bounds(result))
    if args.format == "json":
        terminal.write_json({**as_json(result), "diagnostics": terminal.as_json(diagnostics)})
    elif not args.quiet:
        report_console.write_report(result, verbose=args.verbose)
    terminal.report(diagnostics, args.format)
    return 0 if result.passed else DEMAND


def _tell_before(args: argparse.Namespace, plan: "PlanFile | None") -> None:
    """What long work will take, and what its data reaches, before it begins."""
    if plan is not None or args.emit or args.quiet or args.format != "text" or not _is_large(args.model):
        return
    from qcc.compiler.analyze.estimate import estimate

    policy = load_policy(args.policy or DEFAULT_POLICY, definitions(args), report=Diagnostics())
    found = estimate(args.model, policy, output=args.output, data=data_of(args), dims=dims(args))
    sys.stderr.write("\n".join(found.lines()) + "\n")


def _is_large(model: Path) -> bool:
    try:
        return sum(path.stat().st_size for path in model.parent.glob(f"{model.stem}*")) >= LONG_BYTES
    except OSError:
        return False


def _estimate(args: argparse.Namespace) -> int:
    """Print what compiling would take."""
    with held_back():
        from qcc.compiler.analyze.estimate import estimate  # loads onnx and the runtime

    policy = load_policy(args.policy or DEFAULT_POLICY, definitions(args), report=Diagnostics())
    with progress(args.quiet or args.format != "text") as update:
        found = estimate(args.model, policy, output=args.output, data=data_of(args), dims=dims(args), progress=update)
    if args.format == "json":
        terminal.write_json(found.as_json())
    else:
        terminal.write("\n".join(found.lines()) + "\n")
    return 0


def _policy(args: argparse.Namespace, plan: "PlanFile | None", report: Diagnostics) -> "Policy":
    """The policy that is named, or what the plan keeps of its own, or the default."""
    if args.policy is None and plan is not None:
        from qcc.compiler.repeat import loaded_policy

        return loaded_policy(None, plan, definitions(args))
    return load_policy(args.policy or DEFAULT_POLICY, definitions(args), report=report)


def _emit_policy(args: argparse.Namespace) -> int:
    report = Diagnostics()
    if args.emit == "ast":
        source, _ = open_source(args.policy or DEFAULT_POLICY)
        text = tree_text(parse(source))
    else:
        text = policy_text(load_policy(args.policy or DEFAULT_POLICY, definitions(args), report=report))
    if args.format == "json":
        terminal.write_json({args.emit: text, "diagnostics": terminal.as_json(report.warnings)})
        return 0
    terminal.write(text)
    terminal.report(report.warnings, args.format)
    return 0


def _emit_plan(plan: "Plan", warnings: list[Diagnostic], args: argparse.Namespace) -> int:
    from qcc.compiler.plan.text import to_text

    if args.format == "json":
        terminal.write_json({"plan": to_text(plan), "diagnostics": terminal.as_json(warnings)})
        return 0
    terminal.write(to_text(plan))
    terminal.report(warnings, args.format)
    return 0


def _emit_kernels(policy: "Policy", plan: "PlanFile | None", report: Diagnostics, args: argparse.Namespace) -> int:
    with held_back():
        from qcc.compiler import compile as driver
        from qcc.compiler.runtime import build_kernels

    kernels = plan.plan.kernels if plan else build_kernels.kernels_of(policy)
    if kernels is None:
        asked = args.plan or args.policy or DEFAULT_POLICY
        raise UsageError(f"`{asked}` asks for no kernels", f"`{spelled_native()}` in the policy does")
    if args.emit not in kernels.of.stages:
        shown = ", ".join((*STAGES, *kernels.of.stages))
        raise UsageError(f"kernels for `{kernels.target}` are not shown as `{args.emit}`", f"there are {shown}")
    with progress(args.quiet or args.format != "text") as update:
        decided, ops, warnings = driver.decide_plan(
            args.model,
            policy,
            output=args.output,
            data=data_of(args),
            evaluate=args.evaluate,
            plan=plan,
            dims=dims(args),
            progress=update,
        )
    if decided.kernels and not ops:
        build_kernels.warn_of_no_ops(report, timed=False)
    text = build_kernels.listing(ops, decided.kernels, args.emit) if decided.kernels and ops else ""
    diagnostics = (*warnings, *report.warnings)
    if args.format == "json":
        terminal.write_json({args.emit: text, "diagnostics": terminal.as_json(diagnostics)})
        return 0
    terminal.write(text)
    terminal.report(diagnostics, args.format)
    return 0
