"""The statement ``adapter``: a file of what fine-tuning changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated

from qcc.dsl.check.context import CheckState
from qcc.dsl.check.options import GivenOption, build
from qcc.dsl.policy.options import Interval
from qcc.dsl.policy.policy import AdapterFile
from qcc.dsl.syntax import tree as syntax

SUFFIX = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONVERT = (
    "load it where you trust it with `torch.load(path, weights_only=True)`, and write it with "
    "`safetensors.torch.save_file(tensors, path)`"
)


@dataclass(frozen=True)
class AdapterOptions:
    """The options of `adapter`."""

    scale: Annotated[float, Interval(-1000, 1000)] = 1.0
    alpha: Annotated[float, Interval(-1_000_000, 1_000_000)] | None = None
    only: str | None = None


def read_adapter_line(
    context: CheckState, node: syntax.AdapterLine, given: Sequence[GivenOption], others: Sequence[AdapterFile]
) -> list[AdapterFile]:
    """What a statement says; nothing where it is wrong, which is reported."""
    options = build(context, "adapter", AdapterOptions, given, node.span)
    name, folder = node.file.text, node.span.source.path
    suffix = PurePath(name).suffix.lower()
    if suffix != SUFFIX:
        pickle = suffix in PICKLES
        message = f"`{name}` {'may be a pickle, which can run anything when it is read' if pickle else 'is no adapter'}"
        help = CONVERT if pickle else f"adapters are `{SUFFIX}` files"
        context.report.error("Q203", message, node.file.span, help=help)
        return []
    path = name if folder is None else str(folder.parent / name)
    told = name if not PurePath(name).is_absolute() and ".." not in PurePath(name).parts else Path(name).name
    if any(other.name == told for other in others):
        help = "add its scales up, or give the files names of their own: a plan knows them by those"
        context.report.error("Q206", f"the adapter `{told}` is named twice", node.file.span, help=help)
        return []
    if options is None:
        return []
    return [AdapterFile(path, told, options.scale, options.alpha, options.only, node.span)]
