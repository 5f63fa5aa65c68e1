"""How the matrix products are cut: what stays in which cache."""

from dataclasses import dataclass

from qcc.codegen.target import CpuTarget

PANEL_BYTES = 2 << 10  # of a chunk: 32 inputs of 32 outputs, bfloat16


@dataclass(frozen=True)
class Tiling:
    """The cuts of a matrix product of many rows.

    Args:
        depth: chunks of 32 inputs that are multiplied with all rows of a block before the next, a power of two; their
            panel of 2 kB each is meant for the first cache.
        block_bytes: of packed activations that are multiplied with all outputs before the next; meant for the second.
    """

    depth: int = 16
    block_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if self.depth < 1 or self.depth & self.depth - 1:
            raise ValueError(f"the depth of a panel is a power of two, not {self.depth}")


def tiling(target: CpuTarget) -> Tiling:
    """The cuts by the sizes of the caches: two thirds of the first, half of the second."""
    chunks = max(1, target.l1_bytes * 2 // 3 // PANEL_BYTES)
    return Tiling(1 << chunks.bit_length() - 1, target.l2_bytes // 2)
