"""Where a policy asked for something."""

from pathlib import PurePath

from qcc.dsl.diagnostics.source import Span


def place(span: Span) -> str:
    """Where a rule stands, without the folder: how a policy's path was spelled must not change what is written."""
    name = span.source.name if span.source.preset else PurePath(span.source.name).name
    return f"{name}:{span.line}:{span.column}"
