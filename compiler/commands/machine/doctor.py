"""Look at the installation and the machine: what works, what is missing, and what is lost without it.

The exit status is 1 if something that qcc needs is missing or broken; what only some things need is told.
"""

import argparse
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from qcc.codegen.library.c_compiler import compiler
from qcc.codegen.target.cache import cache_folder
from qcc.codegen.target.errors import BuildError, TargetError
from qcc.codegen.target.find import targets
from qcc.codegen.target.machine import here, machine
from qcc.codegen.target.scratch import scratch
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.ir.plugins import plugins

OLDEST_PYTHON = (3, 11)
PATIENCE_S = 60
EXTRAS = {
    "kernels": ("tvm", "`target cpu` makes no kernels, nor does the preset `fast`; `pip install 'qcc[kernels]'`"),
    "torch": ("torch", "PyTorch modules and .pt2 programs cannot be compiled; `pip install 'qcc[torch]'`"),
    "cluster": ("distributed", "`--cluster` has no workers; `pip install 'qcc[cluster]'`"),
    "graphs": ("sknetwork", "`rows = graph(...)` is not there; `pip install 'qcc[graphs]'`"),
    "transformers": ("transformers", "folders of Hugging Face are not exported; `pip install 'qcc[transformers]'`"),
    "cross": ("ziglang", "kernels are made for this architecture only; `pip install 'qcc[cross]'`"),
}
"""The extras: the module that each brings, and what is lost without it."""
IMPORTED = ("numpy", "onnx", "onnx_ir", "onnxruntime", "scipy")
"""Those with compiled parts, which may be there and not load."""
EXAMPLES = """examples:
  qcc doctor
  qcc doctor --format json
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: of it.
        state: `ok`, `missing` where only some things need it, `broken` where all do.
        told: what was found, or what is lost and what helps.
    """

    name: str
    state: str
    told: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """Look."""
    found = [one for look in LOOKS for one in look()]
    broken = [one for one in found if one.state == "broken"]
    wrong = [Diagnostic("Q592", f"{one.name}: {one.told}") for one in broken]
    if args.format == "json":
        listed = [vars(one) for one in found]
        terminal.write_json({"ok": not broken, "findings": listed, "diagnostics": terminal.as_json(wrong)})
        return int(bool(broken))
    rows = tuple((one.name, one.state, one.told) for one in found)
    columns = Column("what"), Column("state"), Column("")
    terminal.write_table(Table(columns, rows), marks={"  broken  ": "red", "  missing  ": "yellow"})
    terminal.report(wrong, args.format)
    return int(bool(broken))


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()}, {sys.executable}"
    fits = sys.version_info >= OLDEST_PYTHON
    yield Finding("Python", "ok" if fits else "broken", text if fits else f"{text}: 3.11 is the oldest")


def _packages() -> Iterator[Finding]:
    """What qcc asks for, in the versions that are there; what has compiled parts is loaded."""
    try:
        asked = metadata.requires("qcc") or []
    except metadata.PackageNotFoundError:
        yield Finding("qcc", "broken", "it is not installed as a package; `pip install .` in its folder")
        return
    for one in asked:
        requirement = one.partition(";")[0].strip()
        if "extra ==" in one or not requirement:
            continue
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None, requirement
        yield _package(name.group(), requirement[name.end() :].strip("() "))


def _plugins() -> Iterator[Finding]:
    """The packages that bring definitions of their own."""
    for one in plugins():
        told = one.fault or f"{one.module}, {one.version}"
        yield Finding(f"{one.package}, {one.group.removeprefix('qcc.')}", "broken" if one.fault else "ok", told)


def _package(name: str, wanted: str) -> Finding:
    helps = f"`pip install '{name}{wanted}'`"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "broken", f"it is not installed; {helps}")
    if not _fits(version, wanted):
        return Finding(name, "broken", f"{version}, and {wanted} is needed; {helps}")
    if name in IMPORTED and (why := _unloadable(name)):
        return Finding(name, "broken", f"{version} does not load: {why}; `pip install --force-reinstall {name}`")
    return Finding(name, "ok", version)


def _unloadable(name: str) -> str:
    """Why a module cannot be loaded, in a process of its own, as one that is broken may end it."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {name}"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if run.returncode == 0:
        return ""
    lines = run.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process ended with {run.returncode}"


def _fits(version: str, wanted: str) -> bool:
    """Whether a version is within bounds; what is no number in it does not count."""
    have = _numbers(version)
    for sign, text in re.findall(r"(>=|<=|==|<|>|!=)\s*([\w.]+)", wanted):
        bound = _numbers(text)
        if sign == "==" and not text.endswith("*"):
            if version != text:
                return False
            continue
        fits = {">=": have >= bound, "<=": have <= bound, "<": have < bound, ">": have > bound, "!=": have != bound}
        if not fits.get(sign, True):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(one) for one in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version)[0])]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def _extras() -> Iterator[Finding]:
    for name, (module, lost) in EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(f"qcc[{name}]", "ok" if there else "missing", module if there else f"without it {lost}")


def _compiler() -> Iterator[Finding]:
    """Whether a C file becomes a library."""
    try:
        found = compiler(here())
        with scratch() as folder:
            source = folder / "a.c"
            source.write_text("int one(void) { return 1; }\n", encoding="utf-8")
            words = [*found.command, "-shared", "-fPIC", "-o", str(folder / "a.so"), str(source)]
            run = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        yield Finding("C compiler", "missing", f"without it kernels are not made: {error}")
        return
    if run.returncode:
        why = (run.stderr.strip().splitlines() or ["it failed"])[0]
        yield Finding("C compiler", "missing", f"without it kernels are not made: {found.identity}: {why}")
        return
    yield Finding("C compiler", "ok", found.identity)


def _processor() -> Iterator[Finding]:
    here = machine()
    yield Finding("processor", "ok", f"{here.processor}, {here.cores} core{'' if here.cores == 1 else 's'}")
    for one in targets().values():
        if not one.processors:
            continue
        try:
            yield Finding(f"target {one.name}", "ok", f"kernels for {one.native().name} run here")
        except (BuildError, TargetError) as error:
            yield Finding(f"target {one.name}", "missing", f"kernels would not run here: {error}")


def _folders() -> Iterator[Finding]:
    folder = cache_folder()
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    usable = nearest.is_dir() and os.access(nearest, os.W_OK)
    size = sum(map(_size_bytes, folder.rglob("*"))) if folder.is_dir() else 0
    lost = "kernels and measurements are made anew each time"
    told = f"{folder}, {size / 1e6:.0f} MB" if usable else f"{folder} cannot be written: {lost}"
    yield Finding("cache", "ok" if usable else "missing", told)
    yield _temporary()


def _temporary() -> Finding:
    name, asked = "temporary files", os.environ.get("TMPDIR")
    try:
        with scratch() as made:
            found, free = made.parent, shutil.disk_usage(made).free
    except OSError as error:
        return Finding(name, "broken", f"{error.strerror or error}; `TMPDIR` names another folder")
    ignored = f"; `TMPDIR` names `{asked}`, which cannot be used" if asked and Path(asked).resolve() != found else ""
    return Finding(name, "ok", f"{found}, {free / 1e9:.1f} GB free{ignored}")


def _size_bytes(path: Path) -> int:
    """Of a file, if it is one that is still there: other processes use the cache as well."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _extras,
    _plugins,
    _compiler,
    _processor,
    _folders,
)
