"""What a processor's registers hold."""

from qcc.codegen.cpu.processors.processors import AVX2, CpuProcessor

PAIRS = 12
"""Accumulators of 8 lanes that products of pairs go to, of the 16 registers that AVX2 has."""


def wide(processor: CpuProcessor) -> int:
    """Accumulators of 16 lanes that a processor's registers hold, enough to hide a multiply-add's latency."""
    return 16 if processor.has("avx512f") else 6 if processor.has(*AVX2) else 3
