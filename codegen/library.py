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
from qcc.codegen.spec import variants
from qcc.codegen.target import CpuTarget, TargetError
from qcc.codegen.tiling import tiling
from qcc.ir.kernel_op import BIAS, LinearOp

Activations = Literal["int8", "exact"]
FOLDER = Path(__file__).parent
FLAGS = ("-O2", "-ftree-vectorize", "-fPIC", "-fvisibility=hidden", "-shared", "-s", "-pthread", "-Wl,-z,nodelete")
MADE_BY = ("*.py", "*.c", "*.h")


class BuildError(Exception):
    """Kernels could not be built: something is missing, or the C compiler failed."""


def build(
    ops: Iterable[LinearOp],
    target: CpuTarget,
    out: Path,
    activations: Activations = "int8",
) -> Path:
    """Write the library that serves these ops to ``out``, from the cache if it was built before.

    Args:
        ops: in any order, repeats allowed.
        target: the processor to build for; on another, the library registers nothing.
        out: the file to write, replaced at once.
        activations: ``int8`` rounds activations for few rows and multiplies in bfloat16 for many, where the target
            can; ``exact`` keeps float32.

    Raises:
        BuildError: TVM or a C compiler is missing, or failed.
        TargetError: kernels for the target cannot be built on this machine.
    """
    specs = tuple(sorted(set(ops), key=lambda op: op.name))
    if not specs:
        raise BuildError("there are no kernels to build")
    for op in specs:
        if op.is_float or op.steps not in ((), (BIAS,)):
            raise BuildError(f"there are no templates for `{op.name}` yet")
    cached = cache_folder() / f"{_key(specs, target, activations)}.so"
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            made = _make(specs, target, activations, Path(folder))
            made.replace(cached)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.copyfile(cached, beside)
    return beside.replace(out)


def _key(specs: tuple[LinearOp, ...], target: CpuTarget, activations: str) -> str:
    """A hash of all that decides the library: kernels, target, our sources, TVM and the C compiler."""
    facts = (specs, target, activations, _tvm_version(), _compiler(), FLAGS, sources_digest())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def sources_digest() -> str:
    """A hash of what the kernels are made by."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in MADE_BY for path in FOLDER.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _tvm_version() -> str:
    try:
        return importlib.metadata.version("apache-tvm")
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildError(
            "kernels need TVM: pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post0"
        ) from error


def _compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise BuildError("kernels need a C compiler: install cc, or name one in CC")


def _make(specs: tuple[LinearOp, ...], target: CpuTarget, activations: str, folder: Path) -> Path:
    if not target.triple.startswith(platform.machine()):
        raise TargetError(
            f"building for {target.name} on {platform.machine()} needs a cross compiler, which qcc has not"
        )
    from qcc.codegen.generate import generate  # loads TVM

    families = variants(target, activations)
    kinds = sorted({(spec.bits, spec.symmetric) for spec in specs})
    generate(kinds, families, target, folder / "kernels.o")
    (folder / "kernels.h").write_text(_header(specs, kinds, families, target), encoding="utf-8")
    (folder / "exports.map").write_text("{ global: RegisterCustomOps; local: *; };\n", encoding="utf-8")
    made = folder / "kernels.so"
    sources = [str(FOLDER / "shim.c"), str(folder / "kernels.o")]
    exports = f"-Wl,--version-script={folder / 'exports.map'}"
    command = [_compiler(), *FLAGS, exports, f"-I{folder}", *sources, "-o", str(made)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise BuildError(f"the C compiler failed: {run.stderr.strip()[-2000:]}")
    return made


def _header(
    specs: tuple[LinearOp, ...], kinds: list[tuple[int, bool]], families: tuple[str, ...], target: CpuTarget
) -> str:
    """The tables of ``shim.c``: what the code needs, the functions of a family, the ops."""
    rounds, gemm = "int8" in families, "bf16" in families
    shared = (["quantize"] if rounds else []) + (["pack"] if gemm else [])
    each = ["one", "four"] + (["gemm"] if gemm else [])
    names = shared + [f"{function}_{_kind(*kind)}" for kind in kinds for function in each]
    lines = [f"int __tvm_ffi_{name}(void *, const Any *, int, Any *);" for name in names]
    for kind in kinds:
        fields = {name: name for name in shared} | {name: f"{name}_{_kind(*kind)}" for name in each}
        entries = ", ".join(f".{field} = __tvm_ffi_{name}" for field, name in fields.items())
        lines.append(f"static const Family {_kind(*kind)} = {{{entries}, .rounds = {int(rounds)}}};")
    lines.append("#define QCC_NEEDS " + "".join(f"{flag}, " for flag in target.features))
    cuts = tiling(target)
    lines.append(f"#define QCC_DEPTH {cuts.depth}\n#define QCC_BLOCK {cuts.block_bytes}")
    ops = ", ".join(
        f'{{"{spec.name}", {spec.bits}, {spec.group or 0}, {int(spec.symmetric)}, {len(spec.steps)}, '
        f"&{_kind(spec.bits, spec.symmetric)}}}"
        for spec in specs
    )
    return "\n".join([*lines, f"#define QCC_OPS {ops}", ""])


def _kind(bits: int, symmetric: bool) -> str:
    return f"int{bits}_{'sym' if symmetric else 'asym'}"
