"""Export many architectures, small and of random weights, to ONNX: models to prove function-preserving passes on.

    python -m benchmarks.architectures export OUT_DIR [--only NAME ...]

Needs torch, onnxscript and, for most models, transformers; nothing is downloaded. Gains, biases, running statistics
and layer scales, which start as ones and zeros, are drawn at random, so that a pass that loses one is seen. Each file
is run under ONNX Runtime and compared with torch at the exported shape and, where axes are dynamic, at another.
"""

import argparse
import contextlib
import gc
import io
import logging
import math
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from benchmarks.processes.timing import machine, session

if TYPE_CHECKING:
    from torch import Tensor, nn

Shapes = Mapping[str, tuple[int, ...]]
Builder = Callable[[], tuple["nn.Module", Shapes]]
TOLERANCE = 1e-4  # of the largest output: float32 through a few layers, in another order of sums
RESPONSE = 1e-3  # of the largest output: what another input must at least change
BATCH, OTHER_BATCH, OTHER_TOKENS, CALIBRATION = 2, 3, 11, 32
VOCABULARY = 200
TEXT = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
UNFUSED = "-unfused"
UNFUSED_TOO = (
    *("llama-mha", "gpt2", "albert", "bert", "t5-encoder", "swin", "timm-vit", "convnextv2", "resnet-basic", "regnet"),
    *("mobilenet-v3", "efficientnet", "densenet", "shufflenet-v2", "repvgg", "unet", "tcn", "tabular"),
)
"""Also exported with constants folded but nothing fused: the exporter itself folds batch norms into convolutions."""
AXES = (("batch", "sequence"), ("batch",), ())


class Unfit(Exception):
    """The exported file isn't the model, or the model isn't fit for a test."""


def main() -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("export", help="write the models and print one row each")
    command.add_argument("folder", type=Path, metavar="OUT_DIR")
    command.add_argument("--only", nargs="+", metavar="NAME")
    command.set_defaults(run=export_all)
    arguments = parser.parse_args()
    arguments.run(arguments)


def export_all(arguments: argparse.Namespace) -> None:
    """Print one row a model; a failure doesn't stop the others."""
    builders = catalogue()
    names = arguments.only or list(builders)
    if unknown := sorted(set(names) - set(builders)):
        raise SystemExit(f"no such architecture: {', '.join(unknown)}; there are {', '.join(builders)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    print(f"# {machine()}\n# python -m benchmarks.architectures export")
    print("| model | ops | weights, bytes | export, s | dynamic | relative error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        print(row(name, builders[name], arguments.folder / f"{name}.onnx"), flush=True)
        gc.collect()


def catalogue() -> dict[str, Builder]:
    """Every architecture: its name, and what builds it."""
    from benchmarks.architectures import cnn, transformers

    specs = transformers.MODELS
    library = {name: partial(transformers.build, spec) for name, spec in specs.items()}
    own = {**transformers.OWN, **cnn.MODELS}
    found: dict[str, Builder] = {**library, **{name: partial(_own, *one) for name, one in own.items()}}
    return {**found, **{f"{name}{UNFUSED}": found[name] for name in UNFUSED_TOO}}


def _own(kind: Callable[[], "nn.Module"], shape: tuple[int, ...]) -> tuple["nn.Module", Shapes]:
    """One of ours, which takes one input."""
    return kind(), {"input": shape}


def row(name: str, builder: Builder, path: Path) -> str:
    """Build, randomise, export and check one model."""
    import torch

    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    path.unlink(missing_ok=True)
    try:
        module, shapes = builder()
        randomise(module.eval(), shapes, seed)
        check_response(module, shapes)
        seconds, dynamic, error = export(module, shapes, path, not name.endswith(UNFUSED))
    except Exception as problem:  # whatever an exporter or a library may raise
        path.unlink(missing_ok=True)
        return f"| {name} | FAILED | {type(problem).__name__}: {first_line(problem)} | | | |"
    model = onnx.load(path)
    weights = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    return f"| {name} | {len(model.graph.node)} | {weights} | {seconds:.1f} | {dynamic} | {error:.1e} |"


def first_line(problem: BaseException) -> str:
    """The reason beneath an exporter's wrapping, in one line."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0].replace("|", "/")[:200] if lines else ""


def randomise(module: "nn.Module", shapes: Shapes, seed: int) -> None:
    """Draw what is constant at the start, and scale up weights too small for the outputs to depend on them.

    Running statistics are those of random inputs, each then moved at random: a deep network keeps a signal.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                fill(name, tensor, draw)
            elif tensor.ndim > 1 and (small := _smallness(tensor)) > 1:
                tensor.mul_(small)
            elif tensor.ndim == 1 and name.endswith("weight") and float(tensor.abs().max()) < 0.2:
                tensor.copy_(uniform(tensor, draw))  # a norm's gain, which some models start near zero
            elif tensor.ndim == 1 and 0 < float(tensor.abs().max()) < 0.01:
                fill(name, tensor.zero_(), draw)
    for norm in module.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            settle(norm, draw)
    reference(module, inputs(shapes, CALIBRATION, None, seed))


def settle(norm: Any, draw: Any) -> None:
    """When a batch norm next runs, let it take that input's statistics, moved at random, and go on with those."""
    import torch

    def after(_: object, arguments: tuple["Tensor", ...], __: object) -> "Tensor":
        handle.remove()
        norm.eval()
        mean, variance = norm.running_mean, norm.running_var
        variance.add_(0.01 * variance.mean() + 1e-6)  # for channels that are always zero
        mean.add_(0.1 * variance.sqrt() * torch.randn(mean.shape, generator=draw))
        variance.mul_(uniform(variance, draw))
        result: Tensor = norm(*arguments)
        return result

    norm.momentum = 1.0
    norm.train()
    handle = norm.register_forward_hook(after)


def uniform(tensor: "Tensor", draw: Any) -> "Tensor":
    """Values between a half and one and a half, of a tensor's shape."""
    import torch

    return torch.rand(tensor.shape, generator=draw) + 0.5


def fill(name: str, tensor: "Tensor", draw: Any) -> None:
    """Draw a constant tensor: around one if it multiplies, around zero if it is added."""
    import torch

    if float(tensor.flatten()[0]) != 0:
        tensor.copy_(uniform(tensor, draw))
        return
    # a weight of zeros is a gain around one that the model adds (Gemma), or a gate (ConvNeXt V2)
    spread = 0.3 if name.endswith("weight") else 0.1
    tensor.copy_(torch.randn(tensor.shape, generator=draw) * spread)


def _smallness(tensor: "Tensor") -> float:
    """What takes a weight's deviation to that which keeps a signal's size."""
    wanted = 1 / math.sqrt(math.prod(tensor.shape[1:]))
    return wanted / max(float(tensor.std()), 1e-12)


def inputs(shapes: Shapes, batch: int, tokens: int | None, seed: int) -> tuple["Tensor", ...]:
    """Random arguments; the last tokens of every sequence but the first are padding."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    found = []
    for name, shape in shapes.items():
        size = (batch, tokens) if tokens and name in TEXT else (batch, *shape)
        if name == "attention_mask":
            lengths = size[1] - torch.arange(batch).unsqueeze(1)
            found.append((torch.arange(size[1]) < lengths).long())
        elif name in TEXT:
            limits = (0, 2) if name == "token_type_ids" else (4, VOCABULARY)
            found.append(torch.randint(*limits, size, generator=draw))
        else:
            found.append(torch.randn(size, generator=draw))
    return tuple(found)


def reference(module: "nn.Module", arguments: tuple["Tensor", ...]) -> list[np.ndarray]:
    """What torch computes."""
    import torch

    with torch.no_grad():
        result = module(*arguments)
    return [one.numpy() for one in (result if isinstance(result, tuple) else (result,))]


def check_response(module: "nn.Module", shapes: Shapes) -> None:
    """Raise unless the outputs are finite and depend on the inputs."""
    one, two = (reference(module, inputs(shapes, BATCH, None, seed)) for seed in (1, 2))
    for left, right in zip(one, two, strict=True):
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            raise Unfit("an output is not finite")
        if distance(left, right) < RESPONSE:
            raise Unfit(f"an output hardly depends on the input: {distance(left, right):.1e}")


def distance(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over largest value."""
    return float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def export(module: "nn.Module", shapes: Shapes, path: Path, fuse: bool) -> tuple[float, str, float]:
    """Write the file with as many dynamic axes as work: seconds, the axes, and the error against torch."""
    tries = AXES if any(name in TEXT for name in shapes) else AXES[1:]
    for axes in tries:
        start = time.perf_counter()
        try:
            _write(module, shapes, path, axes, fuse)
            tidy(path, fold=not fuse)
            seconds = time.perf_counter() - start
            return seconds, ", ".join(axes) or "static", verify(module, shapes, path, axes)
        except Exception:  # whatever an exporter may raise; the last try's is told
            if axes == tries[-1]:
                raise
    raise AssertionError


def _write(module: "nn.Module", shapes: Shapes, path: Path, axes: tuple[str, ...], fuse: bool) -> None:
    """Export with these dynamic axes."""
    import torch

    dims = {name: torch.export.Dim(name) for name in axes}
    tokens = {1: dims["sequence"]} if "sequence" in axes else {}
    dynamic = tuple({0: dims["batch"], **(tokens if name in TEXT else {})} for name in shapes) if axes else None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(
            module,
            inputs(shapes, BATCH, None, 1),
            str(path),
            input_names=list(shapes),
            dynamo=True,
            dynamic_shapes=dynamic,
            external_data=False,
            optimize=fuse,
            verbose=False,
        )


def tidy(path: Path, fold: bool) -> None:
    """Make equal weights one again, which the exporter copies for each use when it folds; fold constants if not yet."""
    from onnxscript import optimizer

    model = ir.load(path)
    if fold:
        optimizer.fold_constants(model)
        optimizer.remove_unused_nodes(model)
    common.DeduplicateInitializersPass(size_limit=1 << 24)(model)
    ir.save(model, path)


def verify(module: "nn.Module", shapes: Shapes, path: Path, axes: tuple[str, ...]) -> float:
    """The largest relative error of an output, at the exported shape and at another.

    Raises:
        Unfit: it is above the tolerance, or not finite.
    """
    runtime = session(str(path))
    names = [one.name for one in runtime.get_inputs()]
    cases = [inputs(shapes, BATCH, None, 3)]
    if axes:
        cases.append(inputs(shapes, OTHER_BATCH, OTHER_TOKENS if "sequence" in axes else None, 4))
    errors = []
    for arguments in cases:
        feeds = {name: one.numpy() for name, one in zip(shapes, arguments, strict=True) if name in names}
        got = runtime.run(None, feeds)
        errors += [distance(left, right) for left, right in zip(got, reference(module, arguments), strict=True)]
    if not all(error < TOLERANCE for error in errors):  # also when one is not a number
        raise Unfit(f"relative error {max(errors):.1e}")
    return max(errors)
