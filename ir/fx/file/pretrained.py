"""Pretrained models of transformers: a folder with a configuration and weights in safetensors, as a program.

Nothing is downloaded, no pickle is read and no code of the folder is run.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from qcc.ir.errors import ModelError, first_line
from qcc.ir.fx.program import export_module
from qcc.ir.fx.quiet import quiet

BATCH, TOKENS, SAMPLES, FRAMES = 2, 16, 16000, 3000  # what a model is traced with; only what is not free stays so
HOW = {
    "local_files_only": True,
    "use_safetensors": True,
    "trust_remote_code": False,
    "dtype": torch.float32,
    "output_loading_info": True,
}
TEXT = frozenset({"input_ids", "attention_mask", "decoder_input_ids"})
FREE = (("batch", "sequence"), ("batch",), ())
"""The axes that stay free, as many as torch takes."""


def export_pretrained(folder: Path) -> ExportedProgram:
    """The program of the model in a folder, in float32, with its batch and its text's length free where torch can.

    Raises:
        ModelError: the folder holds none that transformers builds from safetensors, or torch cannot export it.
    """
    model = _model(folder)
    given = _inputs(model)
    most = getattr(model.config, "max_position_embeddings", None)  # torch refuses a length that has no positions
    _plain(model, given)
    for axes in FREE:
        dims = {name: Dim(name, max=most if name == "sequence" else None) for name in axes}
        try:
            return export_module(model, (), given, {name: _free(name, dims) for name in given} if axes else None)
        except ModelError:
            if axes == FREE[-1]:
                raise
    raise AssertionError


def _model(folder: Path) -> torch.nn.Module:
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        message = f"transformers reads `{folder}`, and is not installed"
        raise ModelError("Q442", message, "install it: `pip install transformers`") from error
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = next(iter(said.get("architectures") or ()), "")
        kind = getattr(transformers, named, transformers.AutoModel)
        with quiet(), _no_bars(transformers):
            built, found = kind.from_pretrained(str(folder), **HOW)
    except Exception as error:  # a library that trusts its input: what it raises on a bad one is any error at all
        help = "it takes a `config.json` and weights in safetensors, as `save_pretrained` writes them"
        raise ModelError("Q443", f"transformers cannot read `{folder}`: {first_line(error)}", help) from error
    missing = sorted({*found["missing_keys"], *(str(one[0]) for one in found["mismatched_keys"])})
    if missing:  # the library draws them at random, and warns
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        message = f"`{folder}` does not hold all weights of `{type(built).__name__}`: `{missing[0]}`{more}"
        raise ModelError("Q443", message, "save the whole model, or name the class that it is under `architectures`")
    built.eval()
    built.config.use_cache = False
    assert isinstance(built, torch.nn.Module)
    return built


@contextmanager
def _no_bars(transformers: Any) -> Iterator[None]:  # noqa: ANN401 - a module
    """Within, transformers draws no progress: ours is told."""
    told = transformers.utils.logging
    drawn = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            told.enable_progress_bar()


def _inputs(model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401 - a class of transformers
    """What the model takes, by the name that it says its main input has."""
    config, main = model.config, model.main_input_name
    vision = getattr(config, "vision_config", config)
    if main == "pixel_values":
        size = getattr(vision, "image_size", 224)
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        return {main: torch.randn(BATCH, getattr(vision, "num_channels", 3), *sides)}
    text = torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS) % min(int(getattr(config, "vocab_size", 2)), 1000)
    if main == "input_features":
        found = {main: torch.randn(BATCH, config.num_mel_bins, FRAMES)}
    elif main == "input_values":
        found = {main: torch.randn(BATCH, SAMPLES)}
    else:
        found = {main: text, "attention_mask": torch.ones_like(text)}
    return found | ({"decoder_input_ids": text} if getattr(config, "is_encoder_decoder", False) else {})


def _plain(model: torch.nn.Module, given: Mapping[str, torch.Tensor]) -> None:
    """Let a model give tensors by their names, in no class of its library: a program is read without it."""
    forward = model.forward

    def plain(self: torch.nn.Module, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        del self
        return {name: one for name, one in forward(**inputs).items() if isinstance(one, torch.Tensor)}

    shown = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in given]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain.__signature__ = inspect.Signature([own, *shown])  # type: ignore[attr-defined]  # the inputs' names stay
    model.forward = MethodType(plain, model)


def _free(name: str, dims: Mapping[str, Dim]) -> dict[int, Dim]:
    tokens = {1: dims["sequence"]} if "sequence" in dims and name in TEXT else {}
    return {0: dims["batch"], **tokens}
