"""A policy from a configuration of another tool, and what of it could not be said."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from qcc.compiler.draft.settings import Draft, LeftOption, Settings
from qcc.compiler.draft.tools import modelopt, nncf, olive, onnxruntime
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.load import load_text
from qcc.dsl.syntax.format import format_source
from qcc.ir.errors import first_line

TOOLS: Mapping[str, ModuleType] = {one.NAME: one for one in (olive, nncf, modelopt, onnxruntime)}
LARGEST_BYTES = 4 << 20


@dataclass(frozen=True)
class Translation:
    """A policy, and what became of the options that are not in it.

    Args:
        tool: whose configuration it was.
        text: of the policy.
        left: options that change what comes out and are not translated.
        moot: options that say nothing about the written model.
    """

    tool: str
    text: str
    left: tuple[LeftOption, ...]
    moot: tuple[LeftOption, ...]


def translate(path: Path, tool: str | None = None) -> Translation:
    """Translate a configuration.

    Args:
        path: of its JSON.
        tool: whose it is; by default it is told by its keys.

    Raises:
        QccError: it is none, or nothing of it says what layers become.
    """
    config = _read(path)
    name = tool or next((name for name, one in TOOLS.items() if one.recognized(config)), None)
    if name is None:
        help = f"`--from` names the tool: {', '.join(TOOLS)}"
        raise QccError([Diagnostic("Q596", f"`{path}` is no configuration that qcc knows", help=help)])
    draft = Draft()
    TOOLS[name].translate(Settings(config, draft))
    if not draft.rules:
        left = "; ".join(f"`{one.path}`: {one.reason}" for one in draft.left[:3])
        message = f"nothing in `{path}` says what layers become"
        raise QccError([Diagnostic("Q596", message, note=left or None, help="`qcc init MODEL` writes a first policy")])
    try:
        text = format_source(_text(draft, path, name))
        load_text(text, schema(), "the translation")
    except QccError as error:  # a number that no format has, an expression that is none: what is not there is no place
        message = f"`{path}` asks for what no policy can say: {error.diagnostics[0].message}"
        raise QccError([Diagnostic("Q596", message, help=error.diagnostics[0].help)]) from error
    return Translation(name, text, tuple(draft.left), tuple(draft.moot))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1)
        if len(text) > LARGEST_BYTES:
            raise QccError([Diagnostic("Q596", f"`{path}` is no configuration: it has more than 4 MiB")])
        content = json.loads(text)
    except OSError as error:
        raise QccError(
            [Diagnostic("Q596", f"cannot read `{path}`: {(error.strerror or str(error)).lower()}")]
        ) from error
    except RecursionError as error:
        raise QccError([Diagnostic("Q596", f"`{path}` is no configuration: it is nested too deep")]) from error
    except ValueError as error:
        help = "a configuration in YAML or Python: write it as JSON first"
        raise QccError([Diagnostic("Q596", f"`{path}` is no JSON: {first_line(error)}", help=help)]) from error
    if not isinstance(content, dict):
        raise QccError([Diagnostic("Q596", f"`{path}` is no configuration: a JSON object is one")])
    return content


def _text(draft: Draft, path: Path, tool: str) -> str:
    lines = [f"# From {_plain(path.name)} of {tool}, by `qcc translate`."]
    lines += [f"# Not translated: {_plain(one.path)} = {_plain(one.value)}: {one.reason}" for one in draft.left]
    lines += ["qpolicy 1", ""]
    for selector, settings in draft.rules.items():
        told = ", ".join(f"{name} = {value}" if value else name for name, value in settings.items())
        lines.append(f"rule {selector} {{ {told} }}")
    lines += ["", *draft.statements]
    if draft.exported:
        lines.append(f"export {{ {', '.join(f'{name} = {value}' for name, value in draft.exported.items())} }}")
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """What a comment can hold: one line, and nothing that hides."""
    return "".join(char if char.isprintable() else "?" for char in text)
