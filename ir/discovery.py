"""Definitions that are found by standing where they belong: nothing registers them."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from types import ModuleType
from typing import Protocol, TypeVar

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
    members = (member for name in names for member in vars(importlib.import_module(name)).values())
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


def classes_of(module: str, base: type[T]) -> tuple[type[T], ...]:
    """The concrete classes under a base that a module defines."""
    return tuple(
        member
        for member in vars(importlib.import_module(module)).values()
        if inspect.isclass(member)
        and issubclass(member, base)
        and not inspect.isabstract(member)
        and member.__module__ == module
    )


def _modules(package: ModuleType) -> list[str]:
    """The names of the modules of a package and of the packages in it, in order."""
    return sorted(one.name for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.") if not one.ispkg)
