"""A library of C files and objects: those that register ops, the same for every target, and the target's own."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from qcc.codegen.library.c_compiler import Compiler, compiler
from qcc.codegen.target import cache
from qcc.codegen.target.errors import BuildError
from qcc.codegen.target.scratch import scratch
from qcc.ir.model.whole_files import place, unfinished

SHIM = Path(__file__).parents[1] / "shim"
FLAGS = (
    "-O2",
    "-ftree-vectorize",
    "-fPIC",
    "-fvisibility=hidden",
    "-shared",
    "-s",
    "-pthread",
    "-Wl,-z,nodelete,-z,defs",
)
SUFFIX = ".so"

Sources = Callable[[Path], Iterable[Path]]
"""Writes what a library is made of to a folder, where headers are looked for, and gives its C files and objects."""


def library(architecture: str, facts: object, write: Sources, out: Path, fresh: bool = False) -> None:
    """Write a library to ``out``, at once, from the cache if it was made before.

    Args:
        architecture: that it is for, as LLVM's triples spell it.
        facts: all that decides it beside the C compiler, as ``repr`` tells it: the sources' digest is among them.
        write: called where it is not in the cache.
        out: the file.
        fresh: make it even where it was made before.

    Raises:
        BuildError: there is no C compiler, or it failed.
    """
    with_ = compiler(architecture)
    key = hashlib.sha256(repr((facts, with_.identity, FLAGS)).encode()).hexdigest()[:32]
    if fresh:
        cache.forget(key, SUFFIX)
    with unfinished(out, "-kernels") as beside:
        if not cache.fetch(key, SUFFIX, beside):
            with scratch() as folder:
                made = _link(write(folder), with_, folder)
                cache.keep(key, SUFFIX, made)
                shutil.copyfile(made, beside)
        place(beside, out)


def _link(sources: Iterable[Path], with_: Compiler, folder: Path) -> Path:
    made, exports = folder / "kernels.so", folder / "exports.map"
    exports.write_text("{ global: RegisterCustomOps; qcc_provider; local: *; };\n", encoding="utf-8")
    files = [*sorted(SHIM.glob("*.c")), *sources]
    last = [f"-Wl,--version-script={exports}", f"-I{folder}", f"-I{SHIM}", *map(str, files), "-ldl", "-o", str(made)]
    run = subprocess.run([*with_.command, *FLAGS, *last], capture_output=True, text=True)
    if run.returncode:
        raise BuildError(f"the C compiler failed: {run.stderr.strip()[-2000:]}")
    return made
