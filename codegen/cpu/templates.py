"""The templates: ways to multiply, each with what it accepts, from how many rows on, and how it is made.

Few rows are multiplied one by one or by fours by the first template of `FEW` that accepts a product; from some rows on
the first of `MANY` that does takes over, if one does. TVM is loaded when a function is made, and not before.
"""

from abc import abstractmethod
from typing import Any, ClassVar

from qcc.codegen.cpu.apart import ApartTemplate
from qcc.codegen.cpu.attend.template import ATTENDS, ATTENDS_CACHED, ATTENDS_DENSE
from qcc.codegen.cpu.block_templates import BLOCKS
from qcc.codegen.cpu.chain.template import CHAINS, POOLS
from qcc.codegen.cpu.processors.processors import AMX, AVX2, DOTPROD, VNNI, CpuProcessor
from qcc.codegen.cpu.product import ONE, CpuTemplate, Expr, KernelProduct, product_of
from qcc.codegen.target.target import Arithmetic, Template
from qcc.ir.kernel.kernel_op import KernelOp
from qcc.ir.kernel.sequence_op import SequenceOp

FOUR = "four"
ROWS = {ONE: 1, FOUR: 4}
BYTE = 8


class _Few(CpuTemplate):
    """One row, or four: ``rounds`` says that they are rounded to int8 by chunks."""

    rounds: ClassVar[bool] = False

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """A function for each number of rows, and what prepares activations."""
        found = {ONE: f"{ONE}_{product.name}", FOUR: f"{FOUR}_{product.name}"}
        if product.static:
            return found | {"quantize": "quantize_static" if self.rounds else "round_static"}
        return found | ({"quantize": "quantize"} if self.rounds else {})

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """Activations are rounded or not."""
        return {"rounds": int(self.rounds)}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        if word == "quantize":
            from qcc.codegen.cpu.rows import gemv_int8
            from qcc.codegen.cpu.tiles import static

            shared = {"quantize": gemv_int8.quantize, "quantize_static": static.quantize}
            return shared.get(self.functions(product)[word], static.round_floats)(name)
        return self._gemv(name, product, ROWS[word], processor)

    @abstractmethod
    def _gemv(self, name: str, product: KernelProduct, rows: int, processor: CpuProcessor) -> Expr:
        """The function for so many rows."""


class FloatRows(_Few):
    """Weights that are bfloat16, to the accuracy of float32."""

    name: ClassVar[str] = "bf16 weights"

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Such weights, anywhere."""
        return product.codes.is_float and not product.pointwise

    def _gemv(self, name: str, product: KernelProduct, rows: int, processor: CpuProcessor) -> Expr:
        from qcc.codegen.cpu.rows import gemv_bf16

        return gemv_bf16.gemv(name, rows, processor.has(*VNNI))


class _Rounded(_Few):
    """Codes times activations that were rounded to int8, where a processor has ``needs``."""

    rounds: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]]

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """All codes, unless activations are to stay as they are."""
        codes = not product.codes.is_float and not product.pointwise
        return codes and activations != "exact" and processor.has(*self.needs)


class VnniRows(_Rounded):
    """By ``vpdpbusd``."""

    name: ClassVar[str] = "int8 by VNNI"
    ceiling: ClassVar[str] = "int8 VNNI"
    needs: ClassVar[tuple[str, ...]] = VNNI

    def _gemv(self, name: str, product: KernelProduct, rows: int, processor: CpuProcessor) -> Expr:
        from qcc.codegen.cpu.rows import gemv_int8

        return gemv_int8.gemv(name, product.codes_on(processor), rows, product.static, processor.tiling.vectors)


class Avx2Rows(_Rounded):
    """By ``vpmaddubsw``."""

    name: ClassVar[str] = "int8 by AVX2"
    ceiling: ClassVar[str] = "int8 AVX2"
    needs: ClassVar[tuple[str, ...]] = AVX2

    def _gemv(self, name: str, product: KernelProduct, rows: int, processor: CpuProcessor) -> Expr:
        from qcc.codegen.cpu.rows import gemv_avx2

        return gemv_avx2.gemv(name, product.codes_on(processor), rows, product.static)


class NeonRows(_Rounded):
    """By ``sdot``; tables are not looked up there yet."""

    name: ClassVar[str] = "int8 by NEON"
    ceiling: ClassVar[str] = "int8 NEON"
    needs: ClassVar[tuple[str, ...]] = DOTPROD

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Codes of integers."""
        return product.codes.table is None and super().accepts(product, processor, activations)

    def _gemv(self, name: str, product: KernelProduct, rows: int, processor: CpuProcessor) -> Expr:
        from qcc.codegen.cpu.rows import gemv_neon

        return gemv_neon.gemv(name, product.codes_on(processor), rows, product.static)


class ExactRows(_Few):
    """Codes times float32; tables only where a register of floats holds one."""

    name: ClassVar[str] = "exact"

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Codes of integers anywhere, and tables with AVX-512."""
        integers = product.codes.table is None or processor.has(*VNNI)
        return integers and not product.codes.is_float and not product.pointwise

    def _gemv(self, name: str, product: KernelProduct, rows: int, processor: CpuProcessor) -> Expr:
        from qcc.codegen.cpu.rows import gemv_exact

        return gemv_exact.gemv(name, product.codes_on(processor), rows, processor.has(*VNNI))


class _Tiles(CpuTemplate):
    """Tiles of rows by AMX, from ``rows`` on.

    The rows were measured at 1024x1024, 384x1536 and 1536x384 on Sapphire Rapids: from there on a matrix product is
    faster than rows by fours.
    """

    rows: ClassVar[int]
    chunks: ClassVar[int] = 1
    """Of 32 inputs, in a step."""
    packs: ClassVar[str] = "pack_bf16"

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """What `_takes` does, on processors with AMX."""
        takes = not product.pointwise and self._takes(product, activations)
        return takes and activations != "exact" and processor.has(*AMX)

    @abstractmethod
    def _takes(self, product: KernelProduct, activations: str) -> bool:
        """It is for such products."""

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """The product, and what makes tiles of rows."""
        return {"pack": "pack_static" if product.static else self.packs, "gemm": f"gemm_{product.name}"}

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """The rows, what a step is long, and whether codes are not multiplied where they lie."""
        decodes = not product.codes.is_float and (self.chunks == 1 or product.codes.bits < BYTE)
        return {"many": self.rows, "chunks": self.chunks, "decodes": int(decodes)}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.tiles import gemm_bf16, gemm_int8, static

        packers = {"pack_bf16": gemm_bf16.pack, "pack_int8": gemm_int8.pack, "pack_static": static.pack}
        if word == "pack":
            return packers[self.functions(product)[word]](name)
        writer = gemm_int8 if self.packs == "pack_int8" else gemm_bf16
        return writer.gemm(name, product.codes_on(processor), processor.tiling)


class FloatTiles(_Tiles):
    """Weights that are bfloat16."""

    name: ClassVar[str] = "bf16 by AMX"
    ceiling: ClassVar[str] = "bf16 AMX"
    rows: ClassVar[int] = 2

    def _takes(self, product: KernelProduct, activations: str) -> bool:
        return product.codes.is_float


class IntegerTiles(_Tiles):
    """Codes that AMX multiplies as they are, with activations rounded to int8 row by row or by a step."""

    name: ClassVar[str] = "int8 by AMX"
    ceiling: ClassVar[str] = "int8 AMX"
    rows: ClassVar[int] = 5
    chunks: ClassVar[int] = 2
    packs: ClassVar[str] = "pack_int8"

    def _takes(self, product: KernelProduct, activations: str) -> bool:
        integers = not product.codes.is_float and product.codes.table is None
        return integers and (product.static or (product.channel and activations == "int8"))


class CodeTiles(_Tiles):
    """Codes that are decoded to bfloat16."""

    name: ClassVar[str] = "codes by AMX"
    ceiling: ClassVar[str] = "bf16 AMX"
    rows: ClassVar[int] = 11

    def _takes(self, product: KernelProduct, activations: str) -> bool:
        return not product.codes.is_float


class Convolution(CpuTemplate):
    """Convolutions of one point, whose weights were decoded to bfloat16 before."""

    name: ClassVar[str] = "convolutions by AMX"
    ceiling: ClassVar[str] = "bf16 AMX"

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Those, where there is AMX."""
        return product.pointwise and activations != "exact" and processor.has(*AMX)

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """What makes tiles of channels; the product comes with an op's steps."""
        return {"pack": "pack_conv1x1"}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.tiles import conv1x1

        return conv1x1.pack(name)


class WholeRows(CpuTemplate):
    """Codes of 8 bits times rows by fours, rounded by one step each, so that integers are added up to the end."""

    name: ClassVar[str] = "int8 by VNNI, a step a row"
    ceiling: ClassVar[str] = "int8 VNNI"
    needs: ClassVar[tuple[str, ...]] = VNNI
    rows: ClassVar[int] = 4

    def accepts(self, product: KernelProduct, processor: CpuProcessor, activations: str) -> bool:
        """Such codes with one scale a row, where there is VNNI, if activations are to be int8."""
        whole = product.codes.table is None and product.codes.bits == BYTE
        wanted = product.channel and not product.static and activations == "int8"
        return whole and wanted and processor.has(*self.needs)

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """The product of four rows, and what rounds rows."""
        return {"round": "round_rows", "whole": f"whole_{product.name}"}

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """From how many rows on."""
        return {"many": self.rows}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.rows import whole_rows

        return whole_rows.round_rows(name) if word == "round" else whole_rows.product(name, product.codes)


class WholePairs(WholeRows):
    """The same of numbers that are widened to 16 bits."""

    name: ClassVar[str] = "int8 by AVX2, a step a row"
    ceiling: ClassVar[str] = "int8 AVX2"
    needs: ClassVar[tuple[str, ...]] = AVX2

    def functions(self, product: KernelProduct) -> dict[str, str]:
        """See `WholeRows.functions`."""
        return {"round": "round_rows_wide", "whole": f"whole_{product.name}"}

    def facts(self, product: KernelProduct) -> dict[str, int]:
        """Of rows, too, 16 bits a number."""
        return {**super().facts(product), "widens": 1}

    def make(self, word: str, name: str, product: KernelProduct, processor: CpuProcessor) -> Expr:
        """See `CpuTemplate.make`."""
        from qcc.codegen.cpu.rows import whole_rows

        rounds = word == "round"
        return whole_rows.round_rows(name, wide=True) if rounds else whole_rows.product_of_pairs(name, product.codes)


FEW: tuple[CpuTemplate, ...] = (
    *(FloatRows(), VnniRows(), NeonRows(), Avx2Rows(), ExactRows(), Convolution()),
    *BLOCKS,
)
MANY: tuple[CpuTemplate, ...] = (FloatTiles(), IntegerTiles(), CodeTiles(), WholeRows(), WholePairs())
APART: tuple[ApartTemplate[Any], ...] = (CHAINS, POOLS, ATTENDS, ATTENDS_CACHED, ATTENDS_DENSE)
"""Of ops that are no products."""


def templates(product: KernelProduct, processor: CpuProcessor, activations: str) -> tuple[CpuTemplate, ...]:
    """Those that make a product's functions: one for few rows, and where there is one, one for many; none at all where
    the processor has no kernel for it.
    """
    found = (next((one for one in all_ if one.takes(product, processor, activations)), None) for all_ in (FEW, MANY))
    return tuple(one for one in found if one is not None)


class Behind(Template[CpuProcessor]):
    """Two products behind each other, by the templates of both."""

    name: ClassVar[str] = "products behind each other"

    def serves(self, op: KernelOp, processor: CpuProcessor, activations: Arithmetic) -> bool:
        """See `Template.serves`."""
        if not isinstance(op, SequenceOp):
            return False
        return all(templates(product_of(one), processor, activations) for one in op.members)
