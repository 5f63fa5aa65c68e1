"""Definitions that are found by standing where they belong: nothing registers them."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol, TypeVar

from qcc.ir.errors import ModelError
from qcc.ir.plugins import broken, clash, plugin_of

T = TypeVar("T")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=_Named)


def classes(package: ModuleType, base: type[T]) -> tuple[type[T], ...]:
    """The concrete classes under a base that the modules of a package define, by the modules' names."""
    return tuple(member for name in _modules(package) for member in classes_of(name, base))


def values(package: str, kind: type[T]) -> tuple[T, ...]:
    """The values of a type that stand at the top of the modules of a package, each once, by the modules' names."""
    names = _modules(importlib.import_module(package))
    members = (member for name in names for member in vars(load(name)).values())
    return tuple(dict.fromkeys(one for one in members if isinstance(one, kind)))


def named_once(found: Iterable[N]) -> dict[str, N]:
    """Definitions by their names.

    Raises:
        ValueError: two have the same.
    """
    known: dict[str, N] = {}
    for one in found:
        if one.name in known:
            raise ValueError(f"two definitions are called `{one.name}`")
        known[one.name] = one
    return known


def load(name: str) -> ModuleType:
    """A module.

    Raises:
        ModelError: it is a plugin's and cannot be loaded.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:  # of any class: it is not ours
        spec = find_spec(name)
        plugin = plugin_of(spec.origin if spec else None)
        if plugin is None or isinstance(error, ModelError):
            raise
        raise broken(plugin, name, error) from error


def by_name(found: Iterable[T], name: Callable[[T], str]) -> dict[str, T]:
    """Definitions by their names.

    Raises:
        ModelError: two have the same.
    """
    known: dict[str, T] = {}
    for one in found:
        if name(one) in known:
            raise clash(name(one), _home(known[name(one)]), _home(one))
        known[name(one)] = one
    return known


def _home(definition: object) -> str:
    """The module in which a class stands, or that of a value."""
    return str((definition if isinstance(definition, type) else type(definition)).__module__)


def classes_of(module: str, base: type[T]) -> tuple[type[T], ...]:
    """The concrete classes under a base that a module defines."""
    return tuple(
        member
        for member in vars(load(module)).values()
        if inspect.isclass(member)
        and issubclass(member, base)
        and not inspect.isabstract(member)
        and member.__module__ == module
    )


def _modules(package: ModuleType) -> list[str]:
    """The names of the modules of a package and of the packages in it, in order."""
    return sorted(one.name for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.") if not one.ispkg)
