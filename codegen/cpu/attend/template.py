"""How attentions are made: one function that meets some queries with some keys and values."""

from collections.abc import Sequence
from typing import ClassVar

from qcc.codegen.cpu.apart import ApartTemplate
from qcc.codegen.cpu.attend.sizes import few_of, sizes_of
from qcc.codegen.cpu.processors.processors import AVX2, AVX512, CpuProcessor
from qcc.ir.kernel.attend_op import AttendOp
from qcc.ir.kernel.cached_op import CachedOp, RowCode
from qcc.ir.kernel.dense_op import DenseOp

Expr = object  # of TVM, which carries no types
WIDE = 64  # keys, or channels, that are worked on together
LANES = 16  # numbers of a vector
MOST_BLOCK, MOST_CHANNELS = 512, 512  # scores of some rows lie in the first cache
TOGETHER = 4  # queries, at most, that read a row of keys together
SCALES = ("", "fp16", "fp32", "e8m0")  # by the shim's number


class Attends(ApartTemplate[AttendOp]):
    """In float32, with sums that are scaled anew as larger scores come."""

    name: ClassVar[str] = "attention over blocks in float32"
    kind: ClassVar[type] = AttendOp
    row: ClassVar[str] = "AttendSpec"
    serve: ClassVar[str] = "serve_attend"

    def makes(self, op: AttendOp, processor: CpuProcessor) -> bool:
        """Blocks of whole vectors."""
        if not processor.has(*AVX2) or op.segment % op.block:
            return False
        whole = op.block % WIDE == 0 and op.channels % WIDE == 0
        return whole and op.block <= MOST_BLOCK and op.channels <= MOST_CHANNELS

    def names(self, op: AttendOp, processor: CpuProcessor) -> tuple[str, ...]:
        """One, of whatever segments."""
        return (f"attend_block{op.block}_of{op.channels}",)

    def make(self, op: AttendOp, processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
        """See `ApartTemplate.make`."""
        from qcc.codegen.cpu.attend.kernel import attend

        (name,) = self.names(op, processor)
        return {prefix + name: attend(prefix + name, op.block, op.channels, processor.has(*AVX512))}

    def fields(self, op: AttendOp, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """See `ApartTemplate.fields`."""
        return op.block, op.segment, op.channels, *functions


class AttendsCached(ApartTemplate[CachedOp]):
    """In float32, over rows that are read as codes."""

    name: ClassVar[str] = "attention over caches in float32"
    kind: ClassVar[type] = CachedOp
    row: ClassVar[str] = "CachedSpec"
    serve: ClassVar[str] = "serve_cached"

    def makes(self, op: CachedOp, processor: CpuProcessor) -> bool:
        """Rows, and groups in them, of whole vectors."""
        if not processor.has(*AVX2) or op.channels > MOST_CHANNELS:
            return False
        return all(_whole(code, op.channels) for code in (op.keys, op.values))

    def names(self, op: CachedOp, processor: CpuProcessor) -> tuple[str, ...]:
        """Over codes, and over floats where there are such in front."""
        of = f"attend_cached{together(op)}_of{op.channels}"
        codes = f"{of}_{op.keys.word}_{op.values.word}"
        return codes, f"{of}_float_float" if op.first else ""

    def make(self, op: CachedOp, processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
        """See `ApartTemplate.make`."""
        from qcc.codegen.cpu.attend.cached import meet

        pairs = (op.keys, op.values), (RowCode(), RowCode())
        named = zip(self.names(op, processor), pairs, strict=True)
        return {prefix + name: meet(prefix + name, together(op), op.channels, *pair) for name, pair in named if name}

    def fields(self, op: CachedOp, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """See `ApartTemplate.fields`."""
        codes = (f"{{{one.bits}, {one.group}, {SCALES.index(one.scale)}}}" for one in (op.keys, op.values))
        return op.heads, op.kept_heads, op.channels, together(op), int(op.first), *codes, *functions


class AttendsDense(ApartTemplate[DenseOp]):
    """In float32, with sixteen queries in the lanes of a vector."""

    name: ClassVar[str] = "attention in float32"
    kind: ClassVar[type] = DenseOp
    row: ClassVar[str] = "DenseSpec"
    serve: ClassVar[str] = "serve_dense"

    def makes(self, op: DenseOp, processor: CpuProcessor) -> bool:
        """Heads of whole vectors."""
        return processor.has(*AVX2) and op.channels % LANES == 0 and 0 < op.channels <= MOST_CHANNELS

    def names(self, op: DenseOp, processor: CpuProcessor) -> tuple[str, ...]:
        """See `sizes_of`; then that of one query."""
        wide = processor.has(*AVX512)
        return (*(one.name if one else "" for one in sizes_of(op, wide)), few_of(op, wide).name)

    def make(self, op: DenseOp, processor: CpuProcessor, prefix: str) -> dict[str, Expr]:
        """See `ApartTemplate.make`."""
        from qcc.codegen.cpu.attend.dense import meet
        from qcc.codegen.cpu.attend.few import meet_one

        wide = processor.has(*AVX512)
        few = few_of(op, wide)
        found = {prefix + one.name: meet(prefix + one.name, one) for one in sizes_of(op, wide) if one}
        return found | {prefix + few.name: meet_one(prefix + few.name, few)}

    def fields(self, op: DenseOp, processor: CpuProcessor, functions: Sequence[str]) -> tuple[object, ...]:
        """See `ApartTemplate.fields`."""
        many = next(one for one in sizes_of(op, processor.has(*AVX512)) if one)
        pairs = (f"{{{', '.join(functions[at : at + 2])}}}" for at in (0, 2))
        sizes = op.heads, op.kept_heads, op.channels, many.width, many.room
        return *sizes, int(op.masked), int(op.causal), *pairs, functions[-1]


ATTENDS, ATTENDS_CACHED, ATTENDS_DENSE = Attends(), AttendsCached(), AttendsDense()


def together(op: CachedOp) -> int:
    """How many of the queries of a head of keys read its rows together."""
    each = op.heads // op.kept_heads
    return next(count for count in range(TOGETHER, 0, -1) if each % count == 0)


def _whole(code: RowCode, channels: int) -> bool:
    vectors = channels % (LANES * (2 if code.bits == 4 else 1)) == 0
    return vectors and code.group % LANES == 0 and (not code.group or channels % code.group == 0)
