"""What a processor offers to kernels: targets as data, and the one this process runs on."""

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

AVX2 = ("avx2", "fma", "f16c")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
VNNI = (*AVX512, "avx512_vnni")
AMX = (*VNNI, "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
DOTPROD = ("asimddp",)
INSTRUCTION_SETS = {"amx": AMX, "avx512-vnni": VNNI, "avx512": AVX512, "avx2": AVX2, "dotprod": DOTPROD}
"""What tells processors apart in what they take for products, the most first: its name, and the flags that it needs."""


class TargetError(Exception):
    """A target that is unknown, or that kernels cannot be built for on this machine."""


@dataclass(frozen=True)
class CpuTarget:
    """A processor to build for.

    Args:
        name: as the policy spells it.
        mcpu: LLVM's name of the processor that has these features.
        features: the flags, as Linux names them, that generated code needs; a library refuses to register without them.
        triple: LLVM's target triple.
        l1_bytes: of data cache, one core.
        l2_bytes: one core.
    """

    name: str
    mcpu: str
    features: tuple[str, ...] = ()
    triple: str = "x86_64-unknown-linux-gnu"
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10

    @property
    def architecture(self) -> str:
        """As the triple spells it."""
        return self.triple.partition("-")[0]

    @property
    def instructions(self) -> str:
        """The instruction set that the features amount to."""
        return instruction_set(self.features)

    def has(self, *features: str) -> bool:
        """All these features are there."""
        return set(features) <= set(self.features)


TARGETS = {
    target.name: target
    for target in (
        CpuTarget("generic", "x86-64"),
        CpuTarget("avx2", "haswell", AVX2),
        CpuTarget("avx512-vnni", "cascadelake", VNNI, l2_bytes=1 << 20),
        CpuTarget("sapphire-rapids", "sapphirerapids", AMX, l1_bytes=48 << 10, l2_bytes=2 << 20),
        CpuTarget("armv8.2-dotprod", "cortex-a76", DOTPROD, "aarch64-unknown-linux-gnu", 64 << 10),
    )
}
NATIVE = "native"
NATIVE_ORDER = ("sapphire-rapids", "avx512-vnni", "avx2", "generic", "armv8.2-dotprod")


def named(name: str) -> CpuTarget:
    """The target of that name; ``native`` is this machine's.

    Raises:
        TargetError: there is none.
    """
    if name == NATIVE:
        return native()
    if name not in TARGETS:
        raise TargetError(f"unknown target `{name}`; known are native, {', '.join(TARGETS)}")
    return TARGETS[name]


def native() -> CpuTarget:
    """The best named target whose features this machine has, with its own cache sizes.

    Raises:
        TargetError: no target describes this kind of processor.
    """
    flags, kin = cpu_flags(), [TARGETS[name] for name in NATIVE_ORDER if TARGETS[name].architecture == here()]
    if not kin:
        raise TargetError(f"no native target for {here()} yet")
    best = next((one for one in kin if set(one.features) <= flags), None)
    if best is None:
        raise TargetError(f"no native target: this processor lacks {', '.join(set(kin[-1].features) - flags)}")
    return CpuTarget(
        best.name, best.mcpu, best.features, best.triple, cache_bytes(1, best.l1_bytes), cache_bytes(2, best.l2_bytes)
    )


def instruction_set(features: Iterable[str]) -> str:
    """The best of `INSTRUCTION_SETS` that these flags have; empty if they have none."""
    return next((name for name, needed in INSTRUCTION_SETS.items() if set(needed) <= set(features)), "")


def here() -> str:
    """This machine's architecture, as triples spell it; other systems than Linux, which no target is for, by name."""
    system, machine = platform.system(), platform.machine()
    return machine if system == "Linux" else f"{system} on {machine}"


def architecture(targets: Iterable[CpuTarget]) -> str:
    """The one that these targets, at least one, share.

    Raises:
        TargetError: they do not.
    """
    found = {target.architecture: target.name for target in targets}
    if len(found) > 1:
        said = " and ".join(f"{name} is {kind}" for kind, name in found.items())
        raise TargetError(f"a library holds kernels for one architecture, but {said}: compile once for each")
    return next(iter(found))


def runs_here(names: Iterable[str]) -> bool:
    """One of these targets has no need of what this machine lacks."""
    flags = cpu_flags()
    return any(one.architecture == here() and set(one.features) <= flags for one in map(named, names))


def cpu_name() -> str:
    """What this machine's processor is called; its kind where it does not say."""
    return _cpuinfo("model name", "Model") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """The flags of this machine's processor, as Linux names them; none where they cannot be read."""
    return frozenset(_cpuinfo("flags", "Features").split())


def _cpuinfo(*keys: str) -> str:
    """The first line of one of these keys; empty where there is none."""
    if not CPUINFO.exists():
        return ""
    lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(keys)), "")


def cache_bytes(level: int, default: int) -> int:
    """The size of a cache of the first core, data or unified; ``default`` where it cannot be read."""
    for index in sorted(CACHES.glob("index*")):
        try:
            fits = (index / "level").read_text().strip() == str(level)
            kind, size = (index / "type").read_text().strip(), (index / "size").read_text().strip()
        except OSError:
            continue
        if fits and kind in ("Data", "Unified"):
            return int(size.rstrip("KMG")) * UNITS.get(size[-1], 1)
    return default
