"""Folders of other packages that lie beside ours: what stands in them is found as what stands here is.

A package names a folder by an entry point of one of `GROUPS`. The folder joins the one of ours that holds definitions
of that kind, so its modules are modules of ours: the language, its manual, plans, locks and laws hold for them alike.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from qcc.ir.errors import ModelError

GROUPS: Mapping[str, str] = {
    "qcc.passes": "qcc.passes",
    "qcc.formats": "qcc.ir.encoding.formats",
    "qcc.targets": "qcc.codegen",
    "qcc.metrics": "qcc.compiler.metrics",
    "qcc.scores": "qcc.compiler.scores",
    "qcc.ops": "qcc.ir.vocabulary.ops",
}
"""The groups of entry points, and the packages that their folders join."""
INFO = (".dist-info", ".egg-info")
ENTRIES = "entry_points.txt"


@dataclass(frozen=True)
class Plugin:
    """A folder of another package.

    Args:
        package: the distribution, as pip knows it.
        version: of it.
        group: of the entry point.
        module: that the entry point names.
        folder: of that; empty where there is none.
        fault: why there is none.
    """

    package: str
    version: str
    group: str
    module: str
    folder: str
    fault: str = ""


@lru_cache
def plugins() -> tuple[Plugin, ...]:
    """All that installed packages name, by their names; read off their files, as the library for it takes longer."""
    found = {one for place in dict.fromkeys(sys.path) for text, info in _entries(place) for one in _named(text, info)}
    return tuple(sorted(found, key=lambda one: (one.package, one.group, one.module)))


def joined(path: list[str], package: str) -> list[str]:
    """The folders of a package of ours: its own, and those that plugins bring."""
    return [*path, *(one.folder for one in plugins() if GROUPS[one.group] == package and one.folder)]


def check_plugins() -> None:
    """See that every folder is there.

    Raises:
        ModelError: one is not.
    """
    for one in plugins():
        if one.fault:
            raise ModelError("Q597", f"the plugin `{one.package}` names `{one.module}`: {one.fault}", _advice(one))


def plugin_of(file: str | None) -> Plugin | None:
    """The plugin that a module's file belongs to, if it is one's."""
    if file is None:
        return None
    return next((one for one in plugins() if one.folder and Path(file).is_relative_to(one.folder)), None)


def broken(plugin: Plugin, name: str, error: Exception) -> ModelError:
    """A module of a plugin cannot be loaded."""
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return ModelError("Q597", f"`{name}` of the plugin `{plugin.package}` cannot be loaded: {told}", _advice(plugin))


def clash(name: str, one: str, other: str) -> ModelError:
    """Two definitions have a name in common."""
    return ModelError("Q598", f"two definitions are called `{name}`, in `{one}` and in `{other}`")


def _advice(plugin: Plugin) -> str:
    return f"`pip uninstall {plugin.package}`, or a version of it that goes with this qcc"


def _entries(place: str) -> Iterator[tuple[str, str]]:
    """The entry points that packages in a folder of Python's path name, and the folders of their metadata."""
    try:
        names = sorted(name for name in os.listdir(place or ".") if name.endswith(INFO))  # noqa: PTH208 - faster
    except OSError:
        return
    for name in names:
        try:
            text = (Path(place) / name / ENTRIES).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        if "[qcc." in text:
            yield text, str(Path(place) / name)


def _named(text: str, info: str) -> Iterator[Plugin]:
    group = ""
    package, version = _package(Path(info))
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[]")
        elif group in GROUPS and "=" in line and not line.startswith("#"):
            module = line.partition("=")[2].strip()
            yield Plugin(package, version, group, module, *_folder(module))


def _package(info: Path) -> tuple[str, str]:
    """Name and version, as its metadata say."""
    found = {"Name": info.name.partition("-")[0], "Version": ""}
    for file in ("METADATA", "PKG-INFO"):
        try:
            lines = (info / file).read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        except (OSError, ValueError):
            continue
        found |= {key: value.strip() for key, _, value in (line.partition(":") for line in lines) if key in found}
    return found["Name"], found["Version"]


def _folder(module: str) -> tuple[str, str]:
    """Where a package of that name lies, or why there is none."""
    try:
        spec = find_spec(module)
    except Exception as error:  # a parent that fails as it is imported
        return "", f"{type(error).__name__}: {error}".splitlines()[0]
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return (places[0], "") if places else ("", "there is no package of that name")
