"""The statement ``calibrate``: which data a model is run on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from qcc.dsl.check.context import CheckState
from qcc.dsl.check.options import GivenOption, build
from qcc.dsl.policy.data_words import ARRAYS, FOLDER, TEXT, numbers_of
from qcc.dsl.policy.options import Interval
from qcc.dsl.policy.policy import Calibration, Select
from qcc.dsl.syntax import tree as syntax

ABOUT = {"tokenizer": TEXT, "mean": FOLDER, "std": FOLDER}
"""What options are about, by how the name of such data ends."""
GENERATED = "generated"


@dataclass(frozen=True)
class CalibrateOptions:
    """The options of `calibrate`."""

    samples: Annotated[int, Interval(1, 10_000_000)] | None = None
    seed: Annotated[int, Interval(0, 2**32 - 1)] = 0
    select: Annotated[Select, "which of them: drawn, or those that stand for all"] = "draw"
    tokenizer: Annotated[str, "of a text: its tokenizer.json"] | None = None
    mean: Annotated[str, "of images: what is taken off pixels between 0 and 1, once or by channel"] | None = None
    std: Annotated[str, "of images: what the rest is divided by"] | None = None

    def __post_init__(self) -> None:
        """Refuse what are no numbers, and a choice of nobody knows how many."""
        if self.select != "draw" and self.samples is None:
            raise ValueError(f"`select = {self.select}` takes `samples = ...`: how many to choose")
        for name, text in (("mean", self.mean), ("std", self.std)):
            found = (1.0,) if text is None else numbers_of(text)
            if found is None or (name == "std" and 0 in found):
                raise ValueError(f'`{name}` takes numbers with commas between, as "0.5,0.5,0.5", not "{text}"')


def read_calibrate_line(
    context: CheckState, node: syntax.CalibrateLine, given: Sequence[GivenOption]
) -> Calibration | None:
    """What a statement says; None where it is wrong, which is reported."""
    options = build(context, "calibrate", CalibrateOptions, given, node.span)
    name = node.data.text
    if not isinstance(node.data, syntax.String):
        if name != GENERATED:
            help = f'write `calibrate generated` or `calibrate "{name}"`'
            context.report.error("Q203", f"unknown calibration data `{name}`", node.data.span, help=help)
            return None
        name = ""
    elif not name.lower().endswith((ARRAYS, TEXT, FOLDER)):
        help = "write the arrays with `numpy.savez`, named like the model's inputs; a folder's name ends in a slash"
        message = "calibration data is an `.npz` file, a `.txt` text or a folder of images"
        context.report.error("Q203", message, node.data.span, help=help)
        return None
    for one in given:
        about = ABOUT.get(one.name.text, "") if one.name is not None else ""
        if about and not name.lower().endswith(about):
            what = "a text" if about == TEXT else "a folder of images"
            context.report.error("Q203", f"`{one.name.text if one.name else about}` is about {what}", one.span)
            return None
    if options is None:
        return None
    tokenizer = _beside(node, options.tokenizer)
    path = _beside(node, name or None)
    how = tokenizer, options.mean, options.std, options.select
    return Calibration(path, options.samples, options.seed, node.span, *how)


def _beside(node: syntax.CalibrateLine, name: str | None) -> str | None:
    """A path in the folder of the policy; the slash that a folder's name ends in stays."""
    folder = node.span.source.path
    if name is None or folder is None:
        return name
    return str(folder.parent / name) + (FOLDER if name.endswith(FOLDER) else "")
