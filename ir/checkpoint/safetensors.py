"""The header of a safetensors file: which tensors it holds, and which of them are codes and scales of GPTQ or AWQ.

Source: the safetensors format; the layouts that AutoGPTQ and AutoAWQ write.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from qcc.ir.checkpoint.held import Held, WeightFile

LONGEST = 100_000_000  # bytes of a header, as the format bounds it
FLOATS = {"F32": "float", "F64": "float", "F16": "fp16", "BF16": "bf16"}
CODES, SCALES, ZEROS, ORDER = "qweight", "scales", "qzeros", "g_idx"
WORD = 32  # bits of the numbers that codes lie in
Entry = Mapping[str, Any]


def read_safetensors(file: BinaryIO) -> WeightFile:
    """The tensors of a file, by its header alone.

    Raises:
        ValueError: it is not one, or cut off.
    """
    size = int.from_bytes(file.read(8), "little")
    if not 2 <= size <= LONGEST:
        raise ValueError(f"a header of {size:,} bytes")
    text = file.read(size)
    if len(text) < size:
        raise ValueError("it ends within its header")
    try:
        head = json.loads(text)
        entries = {name: entry for name, entry in head.items() if name != "__metadata__"}
        tensors = tuple(_tensors(entries))
    except (KeyError, TypeError, AttributeError, RecursionError, UnicodeDecodeError, ZeroDivisionError) as error:
        raise ValueError(f"its header is not understood: {error}") from error
    packed = {one.stored.split()[0] for one in tensors if one.stored.startswith(("GPTQ", "AWQ"))}
    return WeightFile(", ".join(("safetensors", *sorted(packed))), tensors)


def _tensors(entries: Mapping[str, Entry]) -> Iterator[Held]:
    for name, entry in entries.items():
        base, _, last = name.rpartition(".")
        parts = {part: entries.get(f"{base}.{part}") for part in (CODES, SCALES, ZEROS, ORDER)}
        codes, scales, zeros = parts[CODES], parts[SCALES], parts[ZEROS]
        if codes is None or scales is None or zeros is None:
            dtype, shape = str(entry["dtype"]), _shape(entry)
            ours = FLOATS.get(dtype, "")
            yield Held(name, shape, dtype, _bytes(entry), ours, "" if ours else "no floats")
        elif last == CODES:
            yield _packed(base, codes, scales, zeros, sum(_bytes(one) for one in parts.values() if one is not None))


def _packed(base: str, codes: Entry, scales: Entry, zeros: Entry, size: int) -> Held:
    """A weight whose codes lie in words, along its inputs (GPTQ) or its outputs (AWQ)."""
    (groups, outputs), (rows, columns), (_, words) = _shape(scales), _shape(codes), _shape(zeros)
    bits = WORD * words // outputs
    if bits not in range(2, 9) or words * WORD != bits * outputs:
        raise ValueError(f"the codes of `{base}` have no whole number of bits")
    method, inputs = ("GPTQ", rows * WORD // bits) if columns == outputs else ("AWQ", rows)
    group = inputs // groups
    block = "channel" if groups == 1 else f"group {group}"
    if group * groups != inputs:
        raise ValueError(f"the groups of `{base}` do not fill its {inputs} inputs")
    return Held(base, (outputs, inputs), f"{method} {bits} bits, {block}", size, f"int{bits} {block} asym")


def _shape(entry: Entry) -> tuple[int, ...]:
    shape = tuple(entry["shape"])
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("a shape of no sizes")
    return shape


def _bytes(entry: Entry) -> int:
    start, end = entry["data_offsets"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end):
        raise ValueError("a place that is none")
    return end - start
