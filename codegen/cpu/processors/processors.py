"""Processors that kernels are made for, as data, and which of them this machine is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from qcc.codegen.cpu.processors.tiling import Tiling, tiling
from qcc.codegen.target import machine
from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.target import NATIVE, Processor

AVX2 = ("avx2", "fma", "f16c")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
VNNI = (*AVX512, "avx512_vnni")
AMX = (*VNNI, "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
DOTPROD = ("asimddp",)
INSTRUCTION_SETS = {"amx": AMX, "avx512-vnni": VNNI, "avx512": AVX512, "avx2": AVX2, "dotprod": DOTPROD}
"""What tells processors apart in what they take for products, the most first: its name, and the flags that it needs."""


@dataclass(frozen=True)
class CpuProcessor(Processor):
    """A processor to build for.

    Args:
        name: as the policy spells it.
        mcpu: LLVM's name of the processor that has these features.
        features: the flags, as Linux names them, that generated code needs; a library refuses to register without them.
        triple: LLVM's target triple.
        l2_bytes: of the second cache, one core.
        cuts: of products, in place of those that follow from the caches; for measurements.
    """

    mcpu: str
    features: tuple[str, ...] = ()
    triple: str = "x86_64-unknown-linux-gnu"
    l2_bytes: int = 512 << 10
    cuts: Tiling | None = None

    @property
    def tiling(self) -> Tiling:
        """How products are cut."""
        return self.cuts or tiling(self.l2_bytes)

    @property
    def architecture(self) -> str:
        """As the triple spells it."""
        return self.triple.partition("-")[0]

    @property
    def instructions(self) -> str:
        """The instruction set that the features amount to."""
        return instruction_set(self.features)

    @property
    def obstacle(self) -> str:
        """See `Processor.obstacle`."""
        if self.architecture != machine.here():
            return f"is {self.architecture}"
        flags = machine.cpu_flags()
        missing = [feature for feature in self.features if feature not in flags]
        return f"lacks {', '.join(missing)}" if missing else ""

    @property
    def adds_bytes_exactly(self) -> bool:
        """With VNNI."""
        return self.has(*VNNI)

    @property
    def widens_halves(self) -> bool:
        """It has an instruction from float16 to float32, as all of ARM's with vectors do."""
        return self.has("f16c") or self.has(*DOTPROD)

    @property
    def facts(self) -> Mapping[str, str | list[str]]:
        """See `Processor.facts`."""
        return {"mcpu": self.mcpu, "triple": self.triple, "features": list(self.features)}

    def has(self, *features: str) -> bool:
        """All these features are there."""
        return set(features) <= set(self.features)


PROCESSORS = {
    one.name: one
    for one in (
        CpuProcessor("generic", "x86-64"),
        CpuProcessor("avx2", "haswell", AVX2),
        CpuProcessor("avx512-vnni", "cascadelake", VNNI, l2_bytes=1 << 20),
        CpuProcessor("sapphire-rapids", "sapphirerapids", AMX, l2_bytes=2 << 20),
        CpuProcessor("armv8.2-dotprod", "cortex-a76", DOTPROD, "aarch64-unknown-linux-gnu"),
    )
}
"""By name, of one architecture the best last."""


def named(name: str) -> CpuProcessor:
    """The processor of that name; ``native`` is this machine's.

    Raises:
        TargetError: there is none.
    """
    if name == NATIVE:
        return native()
    if name not in PROCESSORS:
        raise TargetError(f"unknown target `{name}`; known are native, {', '.join(PROCESSORS)}")
    return PROCESSORS[name]


def native() -> CpuProcessor:
    """The best processor whose features this machine has, with its own cache sizes.

    Raises:
        TargetError: none describes this kind of machine.
    """
    here, flags = machine.here(), machine.cpu_flags()
    kin = [one for one in reversed(PROCESSORS.values()) if one.architecture == here]
    if not kin:
        raise TargetError(f"no native target for {here} yet")
    best = next((one for one in kin if not one.obstacle), None)
    if best is None:
        raise TargetError(f"no native target: this processor lacks {', '.join(set(kin[-1].features) - flags)}")
    return replace(best, l2_bytes=machine.cache_bytes(2, best.l2_bytes))


def instruction_set(features: Iterable[str]) -> str:
    """The best of `INSTRUCTION_SETS` that these flags have; empty if they have none."""
    return next((name for name, needed in INSTRUCTION_SETS.items() if set(needed) <= set(features)), "")


def architecture(processors: Iterable[CpuProcessor]) -> str:
    """The one that these processors, at least one, share.

    Raises:
        TargetError: they do not.
    """
    found = {one.architecture: one.name for one in processors}
    if len(found) > 1:
        said = " and ".join(f"{name} is {kind}" for kind, name in found.items())
        raise TargetError(f"a library holds kernels for one architecture, but {said}: compile once for each")
    return next(iter(found))
