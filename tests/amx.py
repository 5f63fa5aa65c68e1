"""Processors with AMX, in tests: this machine's own, or this machine with tiles emulated.

Instructions on tiles raise SIGILL where there is no AMX; `c/amx.c` does then what they would have done. Kernels are
those of Sapphire Rapids, instruction by instruction; only what a library asks of the processor before it registers is
less. That is decided here and nowhere in the product: nobody gets such a library by mistake.
"""

import ctypes
import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from qcc.codegen.cpu.processors.processors import PROCESSORS, CpuProcessor, instruction_set
from qcc.codegen.library.c_compiler import compiler
from qcc.codegen.target.errors import BuildError
from qcc.codegen.target.machine import here

SOURCES = Path(__file__).parent / "c"
TILES = ("amx_tile", "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class Emulated(CpuProcessor):
    """A processor with tiles that are emulated, which are not among its ``features``."""

    @property
    def instructions(self) -> str:
        """With tiles."""
        return instruction_set((*self.features, *TILES))

    def has(self, *features: str) -> bool:
        """All these are there, or emulated."""
        return set(features) <= {*self.features, *TILES}


def with_tiles() -> CpuProcessor:
    """Sapphire Rapids; skips the test where this machine has not even the vectors of that, or no C compiler."""
    wanted = PROCESSORS["sapphire-rapids"]
    return emulated(wanted) if wanted.obstacle else wanted


def emulated(wanted: CpuProcessor) -> CpuProcessor:
    """The same processor with its tiles emulated; skips the test where something else is missing."""
    features = tuple(one for one in wanted.features if one not in TILES)
    made = Emulated(**{**vars(wanted), "features": features})
    if made.obstacle or features == wanted.features:
        pytest.skip(f"the processor {wanted.obstacle}")
    try:
        _install()
    except BuildError as problem:
        pytest.skip(str(problem))
    return made


@functools.cache
def _install() -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert ctypes.CDLL(str(shared_library("amx.c", Path(folder)))).emulate_tiles() == 0


def shared_library(source: str, folder: Path) -> Path:
    """One of the C files, compiled.

    Raises:
        BuildError: there is no C compiler.
    """
    out = folder / f"{source}.so"
    words = ["-O2", "-shared", "-fPIC", str(SOURCES / source), "-o", str(out)]
    done = subprocess.run([*compiler(here()).command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out
