"""From a policy file to its syntax tree, or to all of its syntax errors."""

import re
from importlib import import_module
from pathlib import Path

from lark import UnexpectedToken

from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.diagnostics.spelling import nearest
from qcc.dsl.syntax.build_tree import TooDeepError, build_tree
from qcc.dsl.syntax.tree import File

VERSION = 1
LARGEST_BYTES = 4 * 2**20

_VERSION_LINE = re.compile(r"\ufeff?(?:[\s;]++|#[^\n]*+)*+qpolicy[ \t]+(?P<number>[0-9]+)(?![.\w])")


def parse(source: Source) -> File:
    """Parse a policy.

    Raises:
        QccError: with every syntax error of the text.
    """
    _refuse_future_version(source)
    try:
        tree = build_tree(source, "file", source.text)
    except (UnexpectedToken, TooDeepError) as failure:
        report = Diagnostics()
        import_module("qcc.dsl.syntax.recover").syntax_errors(source, failure, report)  # most texts need none of it
        report.raise_if_errors()
        raise AssertionError("a text outside the grammar has no syntax error") from failure
    assert isinstance(tree, File)
    return tree


def _refuse_future_version(source: Source) -> None:
    # Before parsing: a later language's syntax would only give misleading errors.
    found = _VERSION_LINE.match(source.text)
    if found is None or found["number"].lstrip("0") == str(VERSION):
        return
    span = Span(source, *found.span("number"))
    help = f"this compiler reads `qpolicy {VERSION}`"
    if len(found["number"]) > 4 or int(found["number"]) > VERSION:
        help += "; a newer qcc may read this file"
    raise QccError([Diagnostic("Q106", f"unknown language version `{found['number']}`", span, help)])


def load_source(path: str | Path, name: str | None = None) -> Source:
    """Read a policy file; ``name`` is what diagnostics call it, by default the path as given.

    Raises:
        QccError: there is no such file, or it isn't text.
    """
    path = Path(path)
    name = str(path) if name is None else name
    try:
        if path.is_dir():
            raise _unreadable(name, "it is a directory", "give the policy file inside it")
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise _unreadable(name, "no such file", _similar_file(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(name, reason, None) from None
    return Source(name, _decode(name, data), path)


def _decode(name: str, data: bytes) -> str:
    if len(data) > LARGEST_BYTES:
        raise _not_text(name, f"larger than {LARGEST_BYTES >> 20} MiB", "is this the model instead of the policy?")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _not_text(name, "UTF-16 text", "save it as UTF-8")
    if b"\0" in data:
        raise _not_text(name, "a binary file", "a policy is a text file that starts with `qpolicy 1`")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"not UTF-8: byte 0x{data[error.start]:02x} on line {line}"
        raise _not_text(name, reason, "save it as UTF-8") from None
    return text.replace("\r\n", "\n")


def _unreadable(name: str, reason: str, help: str | None) -> QccError:
    return QccError([Diagnostic("Q107", f"can't read `{name}`: {reason}", help=help)])


def _not_text(name: str, reason: str, help: str) -> QccError:
    return QccError([Diagnostic("Q108", f"`{name}` is not a policy: it is {reason}", help=help)])


def _similar_file(path: Path) -> str | None:
    if path.with_name(path.name + ".qpolicy").is_file():
        return f"did you mean `{path}.qpolicy`?"
    try:
        near = nearest(path.name, [one.name for one in path.parent.glob("*.qpolicy")])
    except (OSError, ValueError):
        return None
    return f"did you mean `{path.with_name(near)}`?" if near else None
