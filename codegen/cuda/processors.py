"""The GPUs that kernels are made for: by what NVIDIA calls their compute capability."""

import ctypes
from dataclasses import dataclass
from functools import lru_cache

from qcc.codegen.target.target import Processor

DRIVER = "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
FIRST = 0  # device, the one that is asked


@dataclass(frozen=True)
class CudaProcessor(Processor):
    """A compute capability. Code for one runs on later ones too: the driver compiles it for the card.

    Args:
        number: ten times the major one and the minor one.
    """

    number: int

    @property
    def obstacle(self) -> str:
        """See `Processor.obstacle`."""
        found = capability()
        if not found:
            return f"no CUDA device is at hand ({DRIVER})"
        return "" if found >= self.number else f"the CUDA device is sm_{found}"

    @property
    def instructions(self) -> str:
        """Nothing was measured for it."""
        return ""


PROCESSORS = {f"sm_{number}": CudaProcessor(f"sm_{number}", number) for number in (70, 75, 80, 86, 89, 90)}
"""By name, the best last."""


@lru_cache
def capability() -> int:
    """Of the first device, ten times the major one and the minor one; 0 where the driver or the device is missing."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return 0
    device, parts = ctypes.c_int(), [ctypes.c_int(), ctypes.c_int()]
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), FIRST):
        return 0
    for part, attribute in zip(parts, (MAJOR, MINOR), strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device):
            return 0
    return 10 * parts[0].value + parts[1].value
