"""Definitions that are found by standing where they belong: nothing registers them."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def classes(package: ModuleType, base: type[T]) -> tuple[type[T], ...]:
    """The concrete classes under a base that the modules of a package define, by the modules' names."""
    names = sorted(f"{package.__name__}.{one.name}" for one in pkgutil.iter_modules(package.__path__))
    return tuple(member for name in names for member in classes_of(name, base))


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
