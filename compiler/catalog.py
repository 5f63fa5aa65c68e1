"""What the language may name: read off the passes and the encodings, so that nothing is declared twice."""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import qcc.passes
from qcc.dsl.schema import FormatFamily, Metric, Property, Range, Schema, TargetKind, Word
from qcc.ir.encoding import MAX_BITS, MIN_BITS, SCALE_TYPES
from qcc.ir.onnx_save_options import NEWEST_OPSET, OLDEST_OPSET, ExternalData
from qcc.passes.contract import Pass, Rounding

SMALLEST_GROUP = 2
INT_WORDS = {
    "tensor": Word(excludes="block"),
    "channel": Word(excludes="block"),
    "group": Word("int", excludes="block", low=SMALLEST_GROUP),
    "tile": Word("tile", excludes="block"),
    "sym": Word(excludes="symmetry"),
    "asym": Word(excludes="symmetry"),
    "scale": Word(tuple(SCALE_TYPES), excludes="scale"),
}
FORMATS = {
    "int": FormatFamily("int", (MIN_BITS, MAX_BITS), INT_WORDS, summary="integers that share a scale by block"),
    "float": FormatFamily("float", summary="as it is"),
}
BUDGET = {
    "size": Metric(
        "size", "<=", {"%": (0, 100), "B": (0, float("inf"))}, summary="of the written model, of the input's"
    ),
    "bits": Metric("bits", "<=", {"": (0, 32)}, summary="average bits of a weight, overheads included"),
    "output_error": Metric(
        "output_error",
        "<=",
        {"": (0, float("inf")), "%": (0, float("inf"))},
        summary="predicted noise power over signal power at the outputs",
    ),
}
VERIFY = {
    "cosine": Metric(
        "cosine", ">=", {"": (-1, 1)}, summary="similarity to the input model's outputs, least of all outputs"
    ),
    "sqnr": Metric("sqnr", ">=", {"dB": (-200, 200), "": (-200, 200)}, summary="signal over error at the outputs"),
    "relative_error": Metric(
        "relative_error",
        "<=",
        {"": (0, float("inf")), "%": (0, float("inf"))},
        summary="largest error over largest value at the outputs",
    ),
}
TARGETS = {
    "onnxruntime": TargetKind("onnxruntime", summary="plain ONNX Runtime on any CPU"),
}


@dataclass(frozen=True)
class Export:
    """How the model is written.

    Args:
        opset: raise the model at least to this version; what the formats need is always met.
        external_data: weights beside the model in one file: for large models, always, or never.
    """

    opset: Annotated[int, Range(OLDEST_OPSET, NEWEST_OPSET)] | None = None
    external_data: ExternalData = "auto"


@lru_cache
def passes() -> dict[str, type[Pass]]:
    """Every pass by its keyword."""
    return {keyword: found for keyword, found in _classes().items() if issubclass(found, Pass)}


@lru_cache
def roundings() -> dict[str, type[Rounding]]:
    """Every value of the rule property ``rounding`` by its keyword."""
    return {keyword: found for keyword, found in _classes().items() if issubclass(found, Rounding)}


@lru_cache
def schema() -> Schema:
    """What the checker holds policies to."""
    properties = {
        "weights": Property("weights", summary="formats that the weight may get; the allocator chooses among several"),
        "rounding": Property("rounding", dict(roundings()), summary="how codes are chosen"),
    }
    return Schema(properties, FORMATS, TARGETS, BUDGET, VERIFY, export=Export)


def keyword_of(definition: type) -> str:
    """A pass's keyword: the name of its module."""
    return definition.__module__.rsplit(".", 1)[-1]


def _classes() -> dict[str, type]:
    found = {}
    for module in pkgutil.iter_modules(qcc.passes.__path__):
        name = "".join(word.capitalize() for word in module.name.split("_"))
        definition = getattr(importlib.import_module(f"qcc.passes.{module.name}"), name, None)
        if inspect.isclass(definition) and not inspect.isabstract(definition):
            found[module.name] = definition
    return found
