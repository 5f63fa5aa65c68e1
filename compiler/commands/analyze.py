"""Tell which layers of a model are sensitive: what each loses in each format, the worst first, and what time it takes.

No policy is needed. One layer at a time is stored in a format, and the outputs are compared with those of the model as
it is; layers are listed by their share of what all lose, over all formats alike. Times are those of the float model in
ONNX Runtime, each layer run alone. With several metrics the order of layers in one and in another is compared.
"""

import argparse
from pathlib import Path

from qcc.codegen.target.interruption import held_back
from qcc.compiler.commands.options.data import add_data, data_of
from qcc.compiler.commands.options.dims import add_dims, dims
from qcc.compiler.console import terminal
from qcc.compiler.console.progress import progress
from qcc.compiler.console.usage import UsageError
from qcc.compiler.metrics.find import additive
from qcc.compiler.scores.find import scores
from qcc.dsl.diagnostics.spelling import did_you_mean

EXAMPLES = """examples:
  qcc analyze model.onnx --data data.npz                  which layers are sensitive
  qcc analyze model.onnx --formats "int4 group 32, nf4 group 32"
  qcc analyze model.onnx --by gradients                   foreseen by PyTorch, in the time of a few runs
  qcc analyze model.onnx --metric accuracy,output_error --evaluate labelled.npz
  qcc analyze model.onnx --metric top_kl,output_error     by two metrics, and how far they agree
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="an .onnx file, or a .pt2 file of torch.export")
    add_data(parser, "samples")
    add_dims(parser)
    add("--formats", metavar="LIST", help="formats as a policy spells them, commas between (default: int8 to int2)")
    names, judged = ", ".join(additive()), ", ".join(_judged())
    help = f"in which losses are told: {names}; or what is lost of a score: {judged}"
    add("--metric", metavar="NAME,NAME", default="output_error", help=help)
    help = "what scores the model: an .npz of samples with `labels`, or a .py script that defines `evaluate(run)`"
    add("--evaluate", metavar="FILE", type=Path, help=help)
    help = "measure losses by runs, or foresee output_error by gradients, which takes PyTorch (default: runs)"
    add("--by", choices=("runs", "gradients"), default="runs", help=help)
    add("--jobs", metavar="N", type=int, default=1, help="processes that run the model (default: 1)")
    help = "workers in place of them, by Dask: `local:N` or `tcp://HOST:PORT`"
    add("--cluster", metavar="ADDRESS", help=help)
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")
    add("-v", "--verbose", action="store_true", help="list every layer, however many there are")


def _judged() -> tuple[str, ...]:
    """Scores that are no metric of losses as well."""
    return tuple(name for name in scores() if name not in additive())


def run(args: argparse.Namespace) -> int:
    """Analyze."""
    metrics = [name.strip() for name in args.metric.split(",")]
    known = (*additive(), *_judged())
    for name in metrics:
        if name not in known:
            raise UsageError(f"no metric of losses is called `{name}`", did_you_mean(name, known, "metric"))
    if args.evaluate is not None and not any(name in _judged() for name in metrics):
        raise UsageError("nothing is judged by `--evaluate`: no score is named", "`--metric accuracy`")
    if args.jobs < 1:
        raise UsageError(f"`--jobs` is at least 1, not {args.jobs}")
    if args.formats is not None and not args.formats.strip(", "):
        raise UsageError("`--formats` names none", '`--formats "int8 channel, int4 group 32"`')
    sizes = dims(args)
    with held_back():
        from qcc.compiler.analyze.analyze import analyze  # these load onnx and the runtime
        from qcc.compiler.analyze.console import as_json, write_analysis

    with progress(args.format != "text") as update:
        given = {
            "formats": args.formats,
            "data": data_of(args),
            "dims": sizes,
            "jobs": args.cluster or args.jobs,
            "by": args.by,
            "evaluate": args.evaluate,
        }
        found = analyze(args.model, metrics=tuple(dict.fromkeys(metrics)), progress=update, **given)
    if args.format == "json":
        terminal.write_json({**as_json(found), "diagnostics": []})
    else:
        write_analysis(found, args.verbose)
    return 0
