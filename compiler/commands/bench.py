"""Time models against each other, and compare what they compute.

All models run in one process and take turns in random order, so that what else the machine does meets all alike. Each
model is run with the kernel library that lies beside it, `MODEL.kernels.so`, where there is one. Times are medians with
quartiles, of one thread its own processor time; ratios to the first are medians over rounds in common. Outputs are
compared with those of the first model. Inputs are generated unless --data gives some: the first axis is the batch,
other free axes are 32 long, those of images 224.

With --learn layers of drawn shapes are timed in place of models, in the forms of a policy's target, on each number of
threads, and kept: a bound `latency(learned)` foretells from them what other layers take.

With --layers the nodes of each model are timed instead, as the runtime runs them, each beside the least that it could
take on this machine (`qcc targets --measure`), with what holds it.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from qcc.codegen.target.interruption import held_back
from qcc.codegen.target.machine import machine
from qcc.compiler.commands.options.data import add_data, data_of
from qcc.compiler.commands.options.dims import add_dims, dims, whole_number
from qcc.compiler.commands.options.picture import add_picture, check_picture, write_picture
from qcc.compiler.commands.options.policy import add_policy, definitions
from qcc.compiler.console import terminal
from qcc.compiler.console.progress import progress
from qcc.compiler.console.usage import UsageError
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.diagnostics.report import Diagnostics

if TYPE_CHECKING:
    from qcc.compiler.bench.feeds import Wanted

FEWEST_ROUNDS, ROUNDS = 3, 15
FEWEST_SHAPES, SHAPES = 20, 120

EXAMPLES = """examples:
  qcc bench model.onnx model.qcc.onnx                  how fast both are, and how far apart
  qcc bench model.onnx model.qcc.onnx --threads 1 --batch 1,16
  qcc bench model.onnx model.qcc.onnx --data data.npz  on inputs of your own
  qcc bench --learn                                    what layers take, to foretell it
  qcc bench model.qcc.onnx --layers --threads 1        every node's time beside its floor, and what holds it
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="*", type=Path, help="an .onnx file; the first is what others are held to")
    add("--threads", metavar="N,N", help="threads of a run, one setting after the other (default: 1 and all cores)")
    add("--batch", metavar="N,N", help="sizes of the batch (default: 1, or the model's own)")
    add_dims(parser)
    add("--sequence", metavar="N", help="the size of the other free axes, but those of images (default: 32)")
    add_data(parser, "inputs")
    add("--rounds", metavar="N", default=str(ROUNDS), help=f"turns of each model in each setting (default: {ROUNDS})")
    add("--plain", action="store_true", help="run what has a kernel library without it, too")
    add("--memory", action="store_true", help="measure what each session keeps in memory, in a process of its own")
    add("--layers", action="store_true", help="time every node beside its floor, and tell what holds it")
    help = (
        "time layers of drawn shapes, from which `budget { latency(learned) <= ... }` foretells others; once a machine"
    )
    add("--learn", action="store_true", help=help)
    add("--shapes", metavar="N", default=str(SHAPES), help=f"with --learn: how many shapes (default: {SHAPES})")
    add_policy(parser, default=None)
    add_picture(parser, "the times")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Time, or learn."""
    if args.learn:
        return _learn(args)
    if not args.models or args.policy:
        raise UsageError("`-p` is about `--learn`" if args.policy else "no model is given", "`qcc bench MODEL MODEL`")
    threads, rounds, wanted = (
        _threads(args.threads),
        whole_number("--rounds", args.rounds, FEWEST_ROUNDS),
        _wanted(args),
    )
    if args.layers:
        return _layers(args, threads, rounds, wanted)
    check_picture(args.picture)
    with held_back():
        from qcc.compiler.bench.bench import bench  # these load onnx and the runtime
        from qcc.compiler.bench.console import as_json, write_report
        from qcc.compiler.bench.picture import draw

    with progress(args.format != "text") as update:
        result = bench(args.models, threads, wanted, rounds, args.plain, update, args.memory)
    write_picture(args.picture, draw(result))
    if args.format == "json":
        terminal.write_json({**as_json(result), "diagnostics": []})
        return 0
    write_report(result)
    if args.picture is not None:
        terminal.write_line(f"\nwrote {escape(str(args.picture))}")
    return 0


def _learn(args: argparse.Namespace) -> int:
    """Time layers of drawn shapes, and tell how well they foretell others."""
    if args.models:
        raise UsageError("`--learn` draws shapes of its own: leave the models out")
    with held_back():
        from qcc.compiler.console.phases import Phases
        from qcc.compiler.measure.learned.learn import learn  # loads onnx and the runtime
        from qcc.compiler.measure.time_model import threads_text
        from qcc.compiler.plan.policy import load_policy
        from qcc.compiler.plan.targets import target_of
        from qcc.compiler.runtime.build_kernels import kernels_of

    shapes, threads = whole_number("--shapes", args.shapes, FEWEST_SHAPES), _threads(args.threads)
    policy = load_policy(args.policy or "lossless", definitions(args), report=Diagnostics())
    with progress(args.format != "text") as update, Phases(update).phase("learn"):
        phases = Phases(update)
        found = learn(target_of(policy), kernels_of(policy), shapes, threads, phases.counter("learn"))
    if args.format == "json":
        terminal.write_json({**asdict(found), "diagnostics": []})
        return 0
    terminal.write_line(f"{found.times} times of layers; `budget {{ latency(learned) <= ... }}` goes by them")
    for count, one in found.judged.items():
        held = f"{one.held} that were held out: R2 {one.score:.4f}, half of them within {100 * one.error:.0f}%"
        terminal.write_line(f"{threads_text(count)}, {held}")
    return 0


def _layers(args: argparse.Namespace, threads: tuple[int, ...], rounds: int, wanted: "Wanted") -> int:
    """Time nodes."""
    for option, given in (("--picture", args.picture is not None), ("--plain", args.plain), ("--memory", args.memory)):
        if given:
            raise UsageError(f"`--layers` prints tables of nodes, so `{option}` has nothing to show")
    with held_back():
        from qcc.compiler.bench.layers.console import as_json, write_layers  # these load onnx and the runtime
        from qcc.compiler.bench.layers.layers import layers

    with progress(args.format != "text") as update:
        result = layers(args.models, threads, wanted, rounds, update)
    if args.format == "json":
        terminal.write_json({**as_json(result), "diagnostics": []})
    else:
        write_layers(result)
    return 0


def _threads(text: str | None) -> tuple[int, ...]:
    cores = machine().cores
    if text is None:
        return tuple(dict.fromkeys((1, cores)))
    threads = _list("--threads", text)
    if max(threads) > cores:
        raise UsageError(f"`--threads {max(threads)}` is more than the {cores} of this machine that qcc may use")
    return threads


def _wanted(args: argparse.Namespace) -> "Wanted":
    from qcc.compiler.bench.feeds import Wanted

    batches = None if args.batch is None else _list("--batch", args.batch)
    sequence = None if args.sequence is None else whole_number("--sequence", args.sequence)
    return Wanted(batches, dims(args, 0), sequence, data_of(args))


def _list(option: str, text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(whole_number(option, word) for word in text.split(",")))
