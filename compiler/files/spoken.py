"""Diagnostics in the user's words: by the names that they gave, not by those of what is made on the way."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.errors import ModelError

MADE = "qcc-"  # that names of folders begin with


def in_words(one: Diagnostic) -> Diagnostic:
    """Without the folders of what is in the making."""
    if not any(MADE in (text or "") for text in (one.message, one.help, one.note)):
        return one
    scratch = import_module("qcc.codegen.target.scratch")  # what tells of a policy does not load it
    return _with(one, scratch.without_folders)


def by_name(found: Iterable[Diagnostic], made: Path, name: str) -> tuple[Diagnostic, ...]:
    """With a name in the place of a file that was made of what has it."""
    return tuple(_with(one, lambda text: text.replace(str(made), name)) for one in found)


@contextmanager
def called(made: Path, name: str) -> Iterator[None]:
    """Let what is raised speak of a file by the name of what it was made of."""
    try:
        yield
    except ModelError as error:
        message, help = error.message.replace(str(made), name), error.help and error.help.replace(str(made), name)
        raise ModelError(error.code, message, help) from error
    except QccError as error:
        error.diagnostics = by_name(error.diagnostics, made, name)
        raise


def _with(one: Diagnostic, change: Callable[[str], str]) -> Diagnostic:
    help, note = one.help and change(one.help), one.note and change(one.note)
    return replace(one, message=change(one.message), help=help, note=note)
