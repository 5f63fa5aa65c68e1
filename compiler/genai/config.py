"""What onnxruntime-genai has to know of a model: names, sizes and tokens, read off its graph and its tokenizer."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qcc.compiler.genai.tokens import TokenizerFiles
from qcc.ir.attention.find import cache_pairs
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph

TOKENS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
KNOWN = (TOKENS, MASK, POSITIONS)
"""Inputs that it feeds beside caches; they may have other names there, and are told by these here."""
TOLD = "hidden_size", "num_attention_heads"
"""What it is told where the model's own configuration says it; it drives models without."""
SIZES = (*TOLD, "max_position_embeddings")
USUAL_CONTEXT, AXES = 2048, 4
GENERIC = "decoder"
NO_NAMES = "rename inputs and outputs when exporting, as in `past_key.0` and `present_key.0`"


def config_of(
    graph: Graph, coded: Mapping[str, str], tokenizer: TokenizerFiles, filename: str, context: int | None
) -> dict[str, Any]:
    """The contents of `genai_config.json`.

    Args:
        graph: of the model.
        coded: the outputs that caches in codes are fed back from, by input.
        tokenizer: its tokenizer.
        filename: of the model in the folder.
        context: tokens that the model reads at most; None for what its tokenizer's files say.

    Raises:
        ModelError: it is no model of tokens that onnxruntime-genai drives.
    """
    inputs = {value.name: value for value in graph.inputs}
    pairs = {**cache_pairs(graph), **coded}
    pairs = {name: pairs[name] for name in inputs if name in pairs}
    others = [name for name in inputs if name not in pairs and name not in KNOWN]
    if TOKENS not in inputs or not pairs or others:
        named = ", ".join(f"`{name}`" for name in others[:3])
        why = f"it takes {named}, too" if others else f"it has no input `{TOKENS}`" if pairs else "it has no caches"
        help = "caches in int8 by channel, or in floats, have no inputs beside them" if others else NO_NAMES
        raise ModelError("Q776", f"onnxruntime-genai cannot drive the model: {why}", help=help)
    keys, values = _patterns(list(pairs)), _patterns(list(pairs.values()))
    heads, width = _sizes(inputs[next(iter(pairs))].shape or ())
    logits = next(value for value in graph.outputs if value.name not in pairs.values())
    size = (logits.shape or (0,))[-1]
    said = {name: size for name, size in tokenizer.model.items() if name not in SIZES or isinstance(size, int)}
    longest = context or min(said.get("max_position_embeddings") or USUAL_CONTEXT, _longest(tokenizer))
    decoder = {
        "filename": filename,
        "session_options": {"provider_options": []},
        "head_size": _unpacked(graph, next(iter(pairs)), width),
        **{name: int(said[name]) for name in TOLD if said.get(name)},
        "num_key_value_heads": heads,
        "num_hidden_layers": len(pairs) // 2,
        "inputs": {name: name for name in KNOWN if name in inputs}
        | {"past_key_names": keys[0], "past_value_names": keys[1]},
        "outputs": {"logits": logits.name, "present_key_names": values[0], "present_value_names": values[1]},
    }
    tokens = _tokens(tokenizer)
    kind = {"type": str(said.get("model_type") or GENERIC), "vocab_size": size, "context_length": longest}
    search = {"max_length": longest, "do_sample": False, "past_present_share_buffer": False}
    return {"model": {**kind, **tokens, "decoder": decoder}, "search": search}


def _sizes(shape: Sequence[int | str | None]) -> tuple[int, int]:
    """The heads and channels of a cache."""
    if len(shape) == AXES and isinstance(shape[1], int) and isinstance(shape[3], int):
        return shape[1], shape[3]
    why = "its caches are not of [batch, heads, rows, channels] with heads and channels that are known"
    raise ModelError("Q776", f"onnxruntime-genai cannot drive the model: {why}", help="export it with these sizes")


def _unpacked(graph: Graph, name: str, width: int) -> int:
    """Channels of a head: codes of four bits lie two in a byte."""
    return 2 * width if graph.value(name).dtype == "uint8" else width


def _tokens(tokenizer: TokenizerFiles) -> dict[str, Any]:
    ends = tokenizer.number("eos")
    if not ends:
        raise ModelError("Q775", "nothing tells which token ends a text", help='name it: `--eos "<|endoftext|>"`')
    found = {kind: (tokenizer.number(kind) or ends)[0] for kind in ("bos", "pad")}
    return {
        "bos_token_id": found["bos"],
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": found["pad"],
    }


def _longest(tokenizer: TokenizerFiles) -> int:
    told = tokenizer.settings.get("model_max_length")
    return int(told) if isinstance(told, int | float) and 0 < told < 1 << 30 else 1 << 30


def _patterns(names: Sequence[str]) -> tuple[str, str]:
    """How names of keys and of values go, with ``%d`` in the place of the layer's number."""
    found: dict[str, list[int]] = {}
    for name in names:
        numbers = list(re.finditer(r"\d+", name))
        if not numbers:
            break
        first = numbers[0]
        found.setdefault(f"{name[: first.start()]}%d{name[first.end() :]}", []).append(int(first.group()))
    layers = list(range(len(names) // 2))
    keys, values = (next((one for one in found if kind in one), "") for kind in ("key", "value"))
    if not keys or not values or any(sorted(found[one]) != layers for one in (keys, values)):
        why = "the names of its caches do not count layers from 0 on"
        raise ModelError("Q776", f"onnxruntime-genai cannot drive the model: {why}", help=NO_NAMES)
    return keys, values
