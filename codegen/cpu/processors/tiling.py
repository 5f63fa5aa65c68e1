"""How the products are cut: what stays in which cache and what in registers."""

from dataclasses import dataclass

TILES_BYTES = 2 << 10  # two tiles: a step of 32 rows, or of 32 outputs


@dataclass(frozen=True)
class Tiling:
    """The cuts of products.

    Args:
        depth: steps along the inputs (of tiles of 1 kB) that all rows multiply before the next; their panel, and two
            tiles of rows beside it, are meant for the first cache.
        block: tiles of 16 rows that are multiplied together, each panel as it is decoded; where there are more, panels
            are kept for rows by the few.
        panel_bytes: of weights as bfloat16 that are kept; they are meant for the second cache.
        ahead: steps along the inputs that tiles of rows are fetched into the first cache before they are loaded; none
            are where it is 0.
        vectors: of 16 outputs that four rows meet at once where integers are scaled chunk by chunk: with all four of a
            strip, sums and codes outgrow the registers.
        strip_bytes: of weights that a task's rows meet before the next, about, where there are no tiles.
    """

    depth: int = 8
    block: int = 16
    panel_bytes: int = 1 << 20
    ahead: int = 0
    vectors: int = 2
    strip_bytes: int = 128 << 10


def tiling(l1_bytes: int, l2_bytes: int) -> Tiling:
    """The cuts by the sizes of the caches: a third of the first, half of the second."""
    return Tiling(max(1, l1_bytes // 3 // TILES_BYTES), panel_bytes=l2_bytes // 2)
