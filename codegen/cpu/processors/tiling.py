"""How the products are cut: what stays in which cache and what in registers."""

from dataclasses import dataclass

TILES_BYTES = 2 << 10  # two tiles: a step of 32 rows, or of 32 outputs


@dataclass(frozen=True)
class Tiling:
    """The cuts of products.

    Args:
        depth: steps along the inputs (of tiles of 1 kB) that all rows multiply before the next. Where it ends before
            the inputs do, results wait in memory, which costs more than a panel that leaves the first cache.
        block: tiles of 16 rows that are multiplied together, each panel as it is decoded; where there are more, panels
            are kept for rows by the few.
        panel_bytes: of weights as bfloat16 that are kept; they are meant for the second cache.
        vectors: of 16 outputs that four rows meet at once where integers are scaled chunk by chunk: with all four of a
            strip, sums and codes outgrow the registers.
        strip_bytes: of weights that a task's rows meet before the next, about, where there are no tiles.
    """

    depth: int = 32
    block: int = 16
    panel_bytes: int = 1 << 20
    vectors: int = 2
    strip_bytes: int = 128 << 10


def tiling(l2_bytes: int) -> Tiling:
    """The cuts by the size of the second cache: a 32nd of it for a panel's slab, half of it for panels."""
    return Tiling(max(1, l2_bytes // 32 // TILES_BYTES), panel_bytes=l2_bytes // 2)
