"""The targets, found by their folders."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import lru_cache

import qcc.codegen
from qcc.codegen.target.target import NATIVE, AnyTarget, Target
from qcc.ir.discovery import by_name, classes_of


@lru_cache
def targets() -> Mapping[str, AnyTarget]:
    """Every target by its name, the one first that is meant where none is named."""
    found = [one() for module in _modules() for one in classes_of(module, Target)]  # type: ignore[type-abstract]
    named = by_name(sorted(found, key=lambda one: (not one.default, one.name)), lambda one: one.name)
    assert [one.default for one in named.values()].count(True) == 1, "one target is the default"
    return named


def spelled_default() -> str:
    """The statement that names the target that is meant where none is named."""
    return f"target {next(iter(targets()))}"


def spelled_native() -> str:
    """The statement that asks for the kernels of this machine, of the first target that has some."""
    return f"target {next(name for name, one in targets().items() if one.templates)}({NATIVE})"


def makers() -> tuple[str, ...]:
    """What makes kernels of some target."""
    return tuple(dict.fromkeys(one.maker for one in targets().values() if one.maker))


def kernel_stages() -> tuple[str, ...]:
    """What kernels of some target can be shown as."""
    return tuple(dict.fromkeys(stage for one in targets().values() for stage in one.stages))


def _modules() -> Iterator[str]:
    """The modules called ``target`` in the folders of this room."""
    for folder in sorted(one.name for one in pkgutil.iter_modules(qcc.codegen.__path__, "qcc.codegen.") if one.ispkg):
        inner = pkgutil.iter_modules(importlib.import_module(folder).__path__, f"{folder}.")
        yield from (one.name for one in inner if one.name == f"{folder}.target")
