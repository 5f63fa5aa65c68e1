"""The machine that this process runs on."""

import platform
from dataclasses import dataclass
from pathlib import Path

from qcc.ir.cores import cores

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Machine:
    """A processor and what this process may use of it.

    ``cores`` are those that the process may run on, hardware threads counted each. Sizes of caches are those of one
    core, of the third cache all that it sees; 0 if unknown.
    """

    processor: str
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int


def machine() -> Machine:
    """This machine."""
    return Machine(cpu_name(), cores(), *(cache_bytes(level, 0) for level in (1, 2, 3)))


def here() -> str:
    """This machine's architecture, as triples spell it; other systems than Linux by name."""
    system, machine = platform.system(), platform.machine()
    return machine if system == "Linux" else f"{system} on {machine}"


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
