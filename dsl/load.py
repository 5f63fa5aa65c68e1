"""The front door: a policy by its file, its text, or a preset's name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qcc.dsl.check.policy import check
from qcc.dsl.check.reach import check_reach
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.diagnostics.source import Source, Span
from qcc.dsl.diagnostics.spelling import did_you_mean, nearest
from qcc.dsl.policy.policy import Policy
from qcc.dsl.policy.schema import Schema
from qcc.dsl.syntax import tree as syntax
from qcc.dsl.syntax.parse import load_source, parse

SUFFIX = ".qpolicy"
_PRESETS = Path(__file__).with_name("presets")


def preset_names() -> tuple[str, ...]:
    """The presets that come with the compiler."""
    return tuple(sorted(path.stem for path in _PRESETS.glob(f"*{SUFFIX}")))


def preset_source(name: str) -> Source:
    """A preset's text.

    Raises:
        QccError: there is no such preset.
    """
    if name not in preset_names():
        help = did_you_mean(name, preset_names())
        raise QccError([Diagnostic("Q223", f"unknown preset `{name}`", help=help)])
    source = load_source(preset_path(name), f"presets/{name}{SUFFIX}")
    return replace(source, path=None, preset=True)


def preset_path(name: str) -> Path:
    """Where a preset lies."""
    return _PRESETS / f"{name}{SUFFIX}"


def preset_summary(name: str) -> str:
    """A preset's first comment, which says what it's for."""
    lines = preset_source(name).text.splitlines()
    return next((line.removeprefix("#").strip() for line in lines if line.startswith("#")), "")


@dataclass(frozen=True)
class FileLoader:
    """Finds presets, and files under one folder; without a folder only presets."""

    root: Path | None

    def load(self, name: str, span: Span) -> Source:
        """The source that `use` names.

        Raises:
            QccError: there is none, or it lies elsewhere.
        """
        if name in preset_names():
            return preset_source(name)
        self._refuse_elsewhere(name, span)
        folder = span.source.path.parent if span.source.path is not None else self.root
        if folder is None or self.root is None or not _is_file_name(name):
            raise _not_found(name, span, folder)
        path = folder / name
        if not _is_there(path):
            raise _not_found(name, span, folder)
        if not path.resolve().is_relative_to(self.root.resolve()):
            note = f"`{name}` leads out of `{self.root}`"
            raise _elsewhere("a policy may only use files of its own folder", span, note)
        return replace(load_source(path, _display(path)), path=path)

    def _refuse_elsewhere(self, name: str, span: Span) -> None:
        if re.match(r"[A-Za-z][\w+.-]+:/", name):
            raise _elsewhere("a policy can't use a URL", span, "compiling never goes to the network")
        if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name):
            raise _elsewhere("a policy can't use an absolute path", span, "it would work on one machine only")
        if "\0" in name or "\\" in name:
            raise _elsewhere("a path is written with `/`", span, None)
        folder = span.source.path.parent if span.source.path is not None else self.root
        if ".." not in name.split("/") or folder is None or self.root is None:
            return
        if not (folder / name).resolve().is_relative_to(self.root.resolve()):
            raise _elsewhere("a policy may only use files of its own folder", span, "`..` leads out of it")


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _display(path: Path) -> str:
    """The path without `a/../`, so that a file has one name."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", path.anchor):
            parts.pop()
        elif part != ".":
            parts.append(part)
    return str(Path(*parts))


def _is_file_name(name: str) -> bool:
    return "/" in name or name.endswith(SUFFIX)


def _elsewhere(message: str, span: Span, note: str | None) -> QccError:
    help = "copy the file beside the policy, or use a preset"
    return QccError([Diagnostic("Q224", message, span, help, note)])


def _not_found(name: str, span: Span, folder: Path | None) -> QccError:
    if not _is_file_name(name):
        help = did_you_mean(name, preset_names())
        if folder is not None and _is_there(folder / f"{name}{SUFFIX}"):
            help = f'did you mean `"{name}{SUFFIX}"`?'
        return QccError([Diagnostic("Q223", f"unknown preset `{name}`", span, help)])
    if folder is None:
        note = "a policy given as text has no folder to look in"
        return QccError([Diagnostic("Q223", f"can't use the file `{name}`", span, "use a preset", note)])
    known = [one.name for one in sorted(folder.glob(f"*{SUFFIX}"))]
    near = nearest(name, known) or nearest(name.removesuffix(SUFFIX), preset_names())
    help_text = f'did you mean `"{near}"`?' if near else None
    return QccError([Diagnostic("Q223", f"no file `{name}` beside the policy", span, help_text)])


def load_policy(
    path_or_preset: str | Path,
    schema: Schema,
    definitions: Mapping[str, str] | None = None,
    *,
    report: Diagnostics | None = None,
) -> Policy:
    """The policy of a file, of a preset by its name, or of a text; warnings are left in ``report``.

    Raises:
        QccError: with everything that is wrong.
    """
    source, root = open_source(path_or_preset)
    return _load(source, schema, definitions, root, Diagnostics() if report is None else report)


def open_source(given: str | Path) -> tuple[Source, Path | None]:
    """What is meant by a preset's name, a file, or a policy's text; and the folder of the files that it uses.

    Raises:
        QccError: there is nothing of that name, or it is no text.
    """
    if isinstance(given, str) and given in preset_names():
        return preset_source(given), None
    if isinstance(given, str) and _TEXT.match(given):
        return Source("<policy>", given.replace("\r\n", "\n"), Path("<policy>")), Path()
    if isinstance(given, str) and not _is_file_name(given) and not _exists(Path(given)):
        raise QccError([Diagnostic("Q223", f"no file and no preset `{given}`", help=_presets_help(given))])
    return load_source(given), Path(given).parent


_STATEMENTS = "rule|use|target|calibrate|graph|metric|budget|minimize|verify|export|let|param"
_TEXT = re.compile(rf"[^\n]*\n|\s*(qpolicy\s+\d|({_STATEMENTS})\s)")
"""What no file and no preset is called."""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _presets_help(name: str) -> str:
    near = nearest(name, preset_names())
    if _exists(Path(f"{name}{SUFFIX}")):
        return f"did you mean `{name}{SUFFIX}`?"
    width = max(map(len, preset_names()))
    listed = "\n".join(f"  {one:<{width}}  {preset_summary(one)}" for one in preset_names())
    return (f"did you mean `{near}`? " if near else "") + f"the presets are\n{listed}"


def faults(
    source: Source, schema: Schema, root: Path | None, definitions: Mapping[str, str] | None = None
) -> tuple[Policy | None, list[Diagnostic]]:
    """All that is wrong with a text and the files that it uses, by place; and the policy, if nothing stops it."""
    report = Diagnostics()
    try:
        policy = _load(source, schema, definitions, root, report)
        check_reach(policy, report)
        report.raise_if_errors()
    except QccError as error:
        return None, list(QccError([*report.warnings, *error.diagnostics]).diagnostics)
    return policy, list(report.warnings)


def load_text(
    text: str,
    schema: Schema,
    name: str = "<policy>",
    base: str | Path | None = None,
    definitions: Mapping[str, str] | None = None,
    *,
    report: Diagnostics | None = None,
) -> Policy:
    """The policy of a text; ``base`` is the folder of the files that it uses.

    Raises:
        QccError: with everything that is wrong.
    """
    root = None if base is None else Path(base)
    source = Source(name, text.replace("\r\n", "\n"), None if root is None else root / name)
    return _load(source, schema, definitions, root, Diagnostics() if report is None else report)


def _load(
    source: Source, schema: Schema, definitions: Mapping[str, str] | None, root: Path | None, report: Diagnostics
) -> Policy:
    tree = parse(source)
    _warn_of_version(tree, report)
    return check(tree, schema, definitions=definitions, loader=FileLoader(root), report=report)


def _warn_of_version(tree: syntax.File, report: Diagnostics) -> None:
    source = tree.span.source
    if source.path is None or (tree.statements and isinstance(tree.statements[0], syntax.VersionLine)):
        return
    place = tree.statements[0].span if tree.statements else None
    span = None if place is None else Span(source, place.start, place.start + 1)
    message = f"`{source.name}` doesn't say its language version"
    report.warning("Q112", message, span, help="start it with `qpolicy 1`")
