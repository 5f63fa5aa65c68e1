"""Kernels as one shared library: TVM's object code and the C shim that registers it with ONNX Runtime."""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from qcc.codegen.cache import cache_folder
from qcc.codegen.header import header, prefix
from qcc.codegen.spec import variants
from qcc.codegen.target import CpuTarget, TargetError
from qcc.ir import kernel_op, packing
from qcc.ir.kernel_op import LinearOp

Activations = Literal["int8", "exact"]
FOLDER = Path(__file__).parent
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
MADE_BY = ("*.py", "*.c", "*.h")


class BuildError(Exception):
    """Kernels could not be built: something is missing, or the C compiler failed."""


def build(
    ops: Iterable[LinearOp],
    targets: tuple[CpuTarget, ...],
    out: Path,
    activations: Activations = "int8",
) -> Path:
    """Write the library that serves these ops to ``out``, from the cache if it was built before.

    Args:
        ops: in any order, repeats allowed.
        targets: the processors to build for, the best first. The library uses the code for the first whose
            instructions it finds, and registers nothing if it finds those of none.
        out: the file to write, replaced at once.
        activations: ``int8`` rounds activations for few rows and multiplies in bfloat16 for many, where a target
            can; ``exact`` keeps float32.

    Raises:
        BuildError: TVM or a C compiler is missing, or failed.
        TargetError: kernels for a target cannot be built on this machine.
    """
    specs = tuple(sorted(set(ops), key=lambda op: op.name))
    if not specs or not targets:
        raise BuildError("there are no kernels to build")
    cached = cache_folder() / f"{_key(specs, targets, activations)}.so"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            made = _make(specs, targets, activations, Path(folder))
            made.replace(cached)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.copyfile(cached, beside)
    return beside.replace(out)


def _key(specs: tuple[LinearOp, ...], targets: tuple[CpuTarget, ...], activations: str) -> str:
    """A hash of all that decides the library: ops, targets, our sources, TVM and the C compiler."""
    facts = (specs, targets, activations, tvm_version(), _compiler(), FLAGS, sources_digest())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def sources_digest() -> str:
    """A hash of what the kernels are made by."""
    digest = hashlib.sha256()
    ours = sorted(path for pattern in MADE_BY for path in FOLDER.glob(pattern))
    for path in (*ours, *(Path(str(module.__file__)) for module in (kernel_op, packing))):
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


def _compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise BuildError("kernels need a C compiler: install cc, or name one in CC")


def _make(specs: tuple[LinearOp, ...], targets: tuple[CpuTarget, ...], activations: str, folder: Path) -> Path:
    for target in targets:
        if not target.triple.startswith(platform.machine()):
            raise TargetError(
                f"building for {target.name} on {platform.machine()} needs a cross compiler, which qcc has not"
            )
    from qcc.codegen.generate import generate  # loads TVM

    objects = []
    for index, target in enumerate(targets):
        objects.append(folder / f"kernels{index}.o")
        generate(specs, variants(target, activations), target, objects[-1], prefix(index))
    (folder / "kernels.h").write_text(header(specs, targets, activations), encoding="utf-8")
    (folder / "exports.map").write_text("{ global: RegisterCustomOps; local: *; };\n", encoding="utf-8")
    made = folder / "kernels.so"
    sources = [*sorted(FOLDER.glob("*.c")), *objects]
    exports = f"-Wl,--version-script={folder / 'exports.map'}"
    command = [_compiler(), *FLAGS, exports, f"-I{folder}", *map(str, sources), "-o", str(made)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise BuildError(f"the C compiler failed: {run.stderr.strip()[-2000:]}")
    return made
