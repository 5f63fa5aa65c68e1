"""How the matrix products are cut: what stays in which cache."""

from dataclasses import dataclass

from qcc.codegen.cpu.processors.processors import CpuProcessor

TILES_BYTES = 2 << 10  # two tiles: a step of 32 rows, or of 32 outputs


@dataclass(frozen=True)
class Tiling:
    """The cuts of a matrix product of many rows.

    Args:
        depth: steps along the inputs (of tiles of 1 kB) that all rows multiply before the next; their panel, and two
            tiles of rows beside it, are meant for the first cache.
        block: tiles of 16 rows that are multiplied together, each panel as it is decoded; where there are more, panels
            are kept for rows by the few.
        panel_bytes: of weights as bfloat16 that are kept; they are meant for the second cache.
    """

    depth: int = 8
    block: int = 16
    panel_bytes: int = 1 << 20


def tiling(target: CpuProcessor) -> Tiling:
    """The cuts by the sizes of the caches: a third of the first, half of the second."""
    return Tiling(max(1, target.l1_bytes // 3 // TILES_BYTES), panel_bytes=target.l2_bytes // 2)
