"""A prefix: rows of keys and values that were trained, as the cache with which a model's first call begins."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from qcc.ir.adapters.read import AdapterTensors
from qcc.ir.attention.find import attentions
from qcc.ir.errors import ModelError
from qcc.ir.graph.attention import Attention, Operand
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds

ROWS = "prompt_embeddings"
NOTE = b"qcc: a pre-filled cache"
FLOATS = ("float32", "float16", "float64")
HELP = "export the model with a cache (`past_key_values`), or with the prefix in it: see the page"
PrefilledCache = Mapping[str, Array]
"""What the inputs of a model's caches are fed at first, ``[1, heads, rows, channels]`` each, by name."""


def has_prefix(tensors: AdapterTensors) -> bool:
    """A file holds rows as peft writes them: those of prefix tuning, or of a prompt."""
    return ROWS in tensors.unread


def prefilled(tensors: AdapterTensors, graph: Graph, sample: Callable[[], Feeds]) -> PrefilledCache:
    """The cache that a prefix comes to.

    A row of the file holds, layer by layer, the keys and then the values of all heads: ``[rows, layers x 2 x heads x
    channels]``. They are taken as they stand, as attention reads them: turned already where keys turn.

    Args:
        tensors: of the file.
        graph: the model's; caches are its inputs.
        sample: makes inputs on which it runs.

    Raises:
        ModelError: the model has no caches, or other ones.

    Source:
        Li and Liang 2021, Prefix-Tuning, section 4.
    """
    source = tensors.source
    if others := [name for name in (*tensors.file,) if name != ROWS]:
        raise ModelError(
            "Q333", f"`{source.name}` has `{others[0]}` beside a prefix", "write each into a file of its own"
        )
    if source.scale != 1 or source.only or source.alpha is not None:
        raise ModelError(
            "Q333", f"`{source.name}` is a prefix, which has no scale and no parts", "leave its options out"
        )
    inputs = {value.name: value for value in graph.inputs}
    pairs = [(one.keys, one.values) for one in attentions(graph, sample()) if isinstance(one, Attention)]
    caches = {operand.past: operand for pair in pairs for operand in pair if operand.past in inputs}
    if not caches:
        message = f"`{source.name}` holds rows that prefix each input, and the model has no cache to take them"
        raise ModelError("Q333", message, HELP)
    rows = np.asarray(tensors.file[ROWS])
    wanted = sum(operand.heads * operand.width for operand in caches.values())
    if rows.ndim != 2 or rows.shape[1] != wanted or not len(rows):
        shape = "x".join(map(str, rows.shape))
        message = f"`{source.name}` does not fit the caches: its rows are {shape}, and they take rows of {wanted}"
        raise ModelError("Q332", f"{message} ({len(caches)} of keys and values)", HELP)
    if not np.isfinite(rows.astype(np.float32)).all():
        raise ModelError("Q332", f"`{source.name}`: `{ROWS}` has numbers that are not finite")
    if other := next((name for name in caches if inputs[name].dtype not in FLOATS), None):
        message = f"the cache `{other}` holds {inputs[other].dtype}, which a file of arrays does not"
        raise ModelError("Q333", message, "export it with a cache of float32 or float16")
    return _cut(rows, caches, {name: str(inputs[name].dtype) for name in caches})


def _cut(rows: Array, caches: Mapping[str, Operand], types: Mapping[str, str]) -> PrefilledCache:
    found, at = dict[str, Array](), 0
    for name, operand in caches.items():
        size = operand.heads * operand.width
        part = rows[:, at : at + size].reshape(1, len(rows), operand.heads, operand.width)
        found[name] = np.ascontiguousarray(part.transpose(0, 2, 1, 3), types[name])
        at += size
    return found


def told(cache: PrefilledCache) -> str:
    """A cache that a prefix filled, in words."""
    count = next(iter(cache.values())).shape[2]
    rows = f"{count:,} row{'' if count == 1 else 's'}"
    return f"a prefix of {rows}, in {len(cache):,} caches: feed them to the first call"


def write_cache(path: Path, cache: PrefilledCache) -> None:
    """Write a cache as ``.npz``, marked as ours."""
    np.savez(path, allow_pickle=False, **cache)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = NOTE


def is_cache(path: Path) -> bool:
    """It is a file that `write_cache` wrote."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.comment == NOTE
    except (OSError, zipfile.BadZipFile):
        return False
