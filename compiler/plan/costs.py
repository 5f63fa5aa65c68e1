"""What becoming something costs a weight, row by row: all that the allocator sees of a candidate, its loss apart."""

from collections.abc import Callable

from qcc.ir.graph.ops import Weight
from qcc.passes.encode import Encode

SIZE, BITS, LATENCY = "size", "bits", "latency"
"""Bytes in the file with what frames them, the share in the average bits of a weight, milliseconds for a sample."""

Seconds = Callable[[Weight, Encode | None], float]


def costs_of(
    weight: Weight, action: Encode | None, params: int, seconds: Seconds | None, half: bool = False
) -> dict[str, float]:
    """The rows of a weight under an action, or as it is.

    Args:
        weight: the weight.
        action: what is done to it.
        params: of all weights of the model.
        seconds: what the weight's layers take, where the policy asks.
        half: the graph computes in half precision, so that what stays float takes two bytes a number; a layer that
            loses its numbers then takes four, which is only known once a file is written.
    """
    size = float(weight.size_bytes) / (2 if half and weight.dtype == "float32" else 1)
    bits = 8 * size
    if action is not None:
        size = float(action.form.stored_bytes(action.encoding, weight.shape))
        bits = float(action.encoding.size_bits(weight.shape))
    rows = {SIZE: size, BITS: bits / max(params, 1)}
    return rows if seconds is None else {**rows, LATENCY: 1e3 * seconds(weight, action)}
