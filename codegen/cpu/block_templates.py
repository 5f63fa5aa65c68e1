"""The templates of weights of which tiles are stored alone."""

from typing import ClassVar

from qcc.codegen.cpu.processors.processors import AMX, AVX2, AVX512, VNNI, CpuProcessor
from qcc.codegen.cpu.product import ONE, CpuTemplate, Expr, KernelProduct
from qcc.ir.encoding.blocked import integers
from qcc.ir.kernel.op import vector_of

SOME = "some"
LANES = 16  # outputs that lie together, or rows that lie side by side
FOUR = "four"
SEVERAL = 4  # rows that are multiplied at once
WIDE = 8  # rows of a group, all at once where there are 32 registers
ROOM = WIDE * 2 * LANES  # sums of which fill half of those
BYTE, FULL = 8, 32  # bits


class BlockTiles(CpuTemplate):
    """Blocks of codes or bfloat16 that are stored alone, as bfloat16 by AMX; from two rows on in tiles of 16."""

    name: ClassVar[str] = "blocks by AMX"
    ceiling: ClassVar[str] = "bf16 AMX"
    of_tiles: ClassVar[bool] = True

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Blocks of multiples of 16 of what bfloat16 holds well enough, where activations may be rounded to it."""
        if product.tile is None or product.static or activations == "exact" or not processor.has(*AMX):
            return False
        return product.codes.bits < FULL and not any(extent % LANES for extent in product.tile)

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """A function for one row, one for tiles of rows, and what makes these."""
        return {
            ONE: f"{ONE}_{product.name}",
            "pack": f"pack_blocks{_chunk(product)}",
            "gemm": f"gemm_{product.name}",
        }

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """The rows of a tile, from how many on they pay, and the inputs of a step."""
        return {"many": 2, "together": LANES, "chunks": _chunk(product)}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.tiles import blocks_bf16

        assert product.tile is not None
        if word == "pack":
            return blocks_bf16.pack(name, _chunk(product))
        if word == ONE:
            return blocks_bf16.one_row(name, product.tile)
        return blocks_bf16.product(name, product.tile, _chunk(product))


class IntegerBlocks(CpuTemplate):
    """Blocks of whole numbers that are stored alone, times activations that are rounded to int8."""

    name: ClassVar[str] = "blocks by int8"
    of_tiles: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = AVX2
    beside: ClassVar[int] = 2
    rounds_static: ClassVar[bool] = True

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Blocks of multiples of 16 with a scale for whole outputs, whose numbers are bytes with a sign."""
        held = integers(product.encoding)
        if held is None or product.tile is None or activations == "exact" or not processor.has(*self.needs):
            return False
        if product.static and not self.rounds_static:
            return False
        fits = not any(extent % LANES for extent in product.tile) and held.block.columns % product.tile[1] == 0
        return fits and (not product.codes.stored_zero or product.codes.bits < BYTE)

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """A function for one row, one for several, and what rounds activations."""
        return {
            "quantize": f"quantize_pairs{_chunk(product)}" + "_static" * product.static,
            ONE: f"{ONE}_{product.name}",
            SOME: f"{SOME}_{product.name}",
        }

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """See `BlockRows.facts`; and how many neighbours share a step of activations."""
        return {"rounds": 1, "together": SEVERAL, "chunks": _chunk(product), "beside": self.beside}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.rows import int8_blocks

        assert product.tile is not None
        if word == "quantize":
            return int8_blocks.quantize(name, _chunk(product), product.static)
        lanes = LANES if processor.has(*AVX512) else LANES // 2
        return int8_blocks.product(name, product.tile, (1 if word == ONE else SEVERAL, lanes, _chunk(product)))


class VnniBlocks(IntegerBlocks):
    """The same by ``vpdpbusd``: four inputs at once."""

    name: ClassVar[str] = "blocks by int8 VNNI"
    ceiling: ClassVar[str] = "int8 VNNI"
    needs: ClassVar[tuple[str, ...]] = VNNI
    beside: ClassVar[int] = 4
    rounds_static: ClassVar[bool] = False

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """See `IntegerBlocks.functions`."""
        return {**super().functions(product), "quantize": f"quantize_fours{_chunk(product)}"}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.rows import vnni_blocks

        assert product.tile is not None
        if word == "quantize":
            return vnni_blocks.quantize(name, _chunk(product))
        return vnni_blocks.product(name, product.tile, 1 if word == ONE else SEVERAL, _chunk(product))


class VnniRowBlocks(VnniBlocks):
    """The same with one step for a whole row: its own, under ``activations = int8``, or one that the model holds."""

    name: ClassVar[str] = "blocks by int8 VNNI, a step a row"
    rounds_static: ClassVar[bool] = True

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """See `IntegerBlocks.accepts`; where rows may be rounded so."""
        return (product.static or activations == "int8") and super().accepts(product, processor, activations)

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """See `IntegerBlocks.functions`; where several are more than four, one for four, too."""
        words = (ONE, SOME) if self._several(product) == SEVERAL else (ONE, FOUR, SOME)
        made = {word: f"{word}_{product.name}" for word in words}
        return {"quantize": "quantize_rows_static" if product.static else "quantize_rows", **made}

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """See `IntegerBlocks.facts`; and that a step is for a whole row."""
        return {"rounds": 1, "together": self._several(product), "beside": self.beside, "stepped": 1}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.rows import vnni_rows

        assert product.tile is not None
        if word == "quantize":
            return vnni_rows.quantize(name, product.static)
        rows = {ONE: 1, FOUR: SEVERAL, SOME: self._several(product)}
        return vnni_rows.product(name, product.tile, rows[word])

    def _several(self, product: KernelProduct) -> int:
        """Two vectors of outputs share what is read, where a tile has them: half as many rows fill the registers."""
        assert product.tile is not None
        return WIDE if product.tile[0] % (2 * LANES) else SEVERAL


def _chunk(product: KernelProduct) -> int:
    """Neighbouring inputs that share a step of activations."""
    assert product.tile is not None
    return 2 * LANES if product.tile[1] % (2 * LANES) == 0 else LANES


class BlockRows(CpuTemplate):
    """Blocks that are stored alone as float32, some rows at a time; others are decoded when a layer is made."""

    name: ClassVar[str] = "blocks"
    of_tiles: ClassVar[bool] = True

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """All, anywhere, whose activations are floats."""
        return product.tile is not None and not product.static

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """A function for one row, one for four, and one for several."""
        return {ONE: f"{ONE}_{product.name}", FOUR: f"{FOUR}_{product.name}", SOME: f"{SOME}_{product.name}"}

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """How many several rows are, and of how many neighbouring outputs weights lie together."""
        size, axis = _vector(product)
        panels = _in_panels(product)
        return {"together": LANES if panels else WIDE, "lanes": size if axis == 0 else 1, "panels": int(panels)}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.rows import blocks

        assert product.tile is not None
        if word == SOME and _in_panels(product):
            return blocks.panels(name, product.tile)
        if word != SOME:
            return blocks.product(name, product.tile, {ONE: 1, FOUR: SEVERAL}[word])
        wide = processor.has(*AVX512)
        return blocks.product(name, product.tile, WIDE if wide else SEVERAL, ROOM if wide else 0, WIDE)


def _vector(product: KernelProduct) -> tuple[int, int]:
    """What is multiplied at once of a tile, and along which axis."""
    assert product.tile is not None
    found = vector_of(product.tile)
    assert found is not None
    return found


def _in_panels(product: KernelProduct) -> bool:
    """Rows lie side by side, since fewer weights of a block do; measured on Zen 3."""
    return _vector(product)[0] < LANES


BLOCKS: tuple[CpuTemplate, ...] = (BlockTiles(), VnniRowBlocks(), VnniBlocks(), IntegerBlocks(), BlockRows())
