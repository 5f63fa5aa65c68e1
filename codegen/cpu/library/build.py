"""Kernels as one shared library: TVM's object code and the C shim that registers it with ONNX Runtime."""

import hashlib
import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from qcc.codegen.cpu.library.header import header, prefix
from qcc.codegen.library.c_compiler import BuildError, Compiler, compiler
from qcc.codegen.target import cache
from qcc.codegen.target.scratch import scratch
from qcc.codegen.target.target import CpuTarget, architecture
from qcc.ir.encoding import blocked, grid, packing
from qcc.ir.kernel import op as kernel_op
from qcc.ir.kernel.op import LinearOp
from qcc.ir.model.whole_files import place, unfinished

Arithmetic = Literal["int8", "bf16", "exact"]
ROOM = Path(__file__).parents[2]
SHIM, ABI = ROOM / "cpu" / "shim", ROOM / "shim"
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
MADE_BY = ("*.py", "*.c", "*.h")


def build(
    ops: Iterable[LinearOp],
    targets: tuple[CpuTarget, ...],
    out: Path,
    activations: Arithmetic = "bf16",
    fresh: bool = False,
) -> Path:
    """Write the library that serves these ops to ``out``, from the cache if it was built before.

    Args:
        ops: in any order, repeats allowed.
        targets: the processors to build for, the best first. The library uses the code for the first whose
            instructions it finds, and registers nothing if it finds those of none.
        out: the file to write, replaced at once.
        activations: ``bf16`` rounds them to int8 by 32 neighbours where rows are few and to bfloat16 where they are
            many; ``int8`` rounds many rows to int8, each row by itself, where codes share one scale; ``exact`` keeps
            float32. A processor without such instructions computes more exactly.
        fresh: build it even where it was built before.

    Raises:
        BuildError: TVM or a C compiler for the targets is missing, or failed.
        TargetError: the targets are of several architectures, which no library can be for.
    """
    specs = tuple(sorted(set(ops), key=lambda op: op.name))
    if not specs or not targets:
        raise BuildError("there are no kernels to build")
    with_ = compiler(architecture(targets))
    key = _key(specs, targets, activations, with_)
    if fresh:
        cache.forget(key, SUFFIX)
    with unfinished(out, "-kernels") as beside:
        if not cache.fetch(key, SUFFIX, beside):
            with scratch() as folder:
                made = _link(write_sources(specs, targets, activations, folder), with_, folder)
                cache.keep(key, SUFFIX, made)
                shutil.copyfile(made, beside)
        place(beside, out)
    return out


def _key(specs: tuple[LinearOp, ...], targets: tuple[CpuTarget, ...], activations: str, with_: Compiler) -> str:
    """A hash of all that decides the library: ops, targets, our sources, TVM and the C compiler."""
    facts = (specs, targets, activations, tvm_version(), with_.identity, FLAGS, sources_digest())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def sources_digest() -> str:
    """A hash of what the kernels are made by."""
    digest = hashlib.sha256()
    ours = sorted(path for pattern in MADE_BY for path in ROOM.rglob(pattern))
    for path in (*ours, *(Path(str(module.__file__)) for module in (kernel_op, packing, blocked, grid))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def tvm_version() -> str:
    """The version of TVM that is installed.

    Raises:
        BuildError: none is.
    """
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildError("TVM is missing, which comes with qcc: `pip install --force-reinstall qcc`") from error


def write_sources(
    specs: tuple[LinearOp, ...], targets: tuple[CpuTarget, ...], activations: str, folder: Path
) -> list[Path]:
    """Write to a folder what the shim's C files include, and give these files and the targets' objects."""
    from qcc.codegen.cpu.library.generate import generate  # loads TVM

    objects = []
    for index, target in enumerate(targets):
        objects.append(folder / f"kernels{index}.o")
        generate(specs, activations, target, objects[-1], prefix(index))
    (folder / "kernels.h").write_text(header(specs, targets, activations), encoding="utf-8")
    return [*sorted(SHIM.glob("*.c")), *objects]


def _link(sources: list[Path], with_: Compiler, folder: Path) -> Path:
    made, exports = folder / "kernels.so", folder / "exports.map"
    exports.write_text("{ global: RegisterCustomOps; local: *; };\n", encoding="utf-8")
    last = [f"-Wl,--version-script={exports}", f"-I{folder}", f"-I{ABI}", *map(str, sources), "-o", str(made)]
    run = subprocess.run([*with_.command, *FLAGS, *last], capture_output=True, text=True)
    if run.returncode:
        raise BuildError(f"the C compiler failed: {run.stderr.strip()[-2000:]}")
    return made
