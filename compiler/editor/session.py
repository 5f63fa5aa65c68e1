"""What a client has open, and the answers to what it asks about it."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from qcc.compiler.editor.complete import Completion, completions
from qcc.compiler.editor.context import word_span
from qcc.compiler.editor.document import Document, path_of, position, span_range
from qcc.compiler.editor.hints import layer_counts, model_facts
from qcc.compiler.editor.hover import explained
from qcc.compiler.editor.known import known_schema
from qcc.compiler.editor.names import definition, rename, uses
from qcc.compiler.editor.rpc import Message
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity, TextEdit
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.fixes import fixes
from qcc.dsl.load import faults, preset_path
from qcc.dsl.policy.select import Facts
from qcc.dsl.syntax.format import format_source
from qcc.ir.errors import ModelError

SORTS = {
    "keyword": 14, "property": 10, "value": 12, "function": 3, "option": 5, "name": 6, "file": 17, "unit": 11,
}  # fmt: skip
"""What the protocol calls the sorts of completions."""
SEVERITIES = {Severity.ERROR: 1, Severity.WARNING: 2}


class ClientSession:
    """The open documents of one client.

    Args:
        send: takes messages for the client.
        model: whose layers are counted.
    """

    def __init__(self, send: Callable[[Message], None], model: Path | None) -> None:
        self._send = send
        self._documents: dict[str, Document] = {}
        self._facts: list[list[Facts]] = []
        self.handlers: Mapping[str, Callable[[Message], Any]] = {
            "textDocument/didOpen": self._open,
            "textDocument/didChange": self._change,
            "textDocument/didClose": self._close,
            "textDocument/didSave": lambda _: None,
            "textDocument/completion": self._complete,
            "textDocument/hover": self._hover,
            "textDocument/definition": self._define,
            "textDocument/references": self._refer,
            "textDocument/rename": self._rename,
            "textDocument/formatting": self._format,
            "textDocument/codeAction": self._act,
            "textDocument/inlayHint": self._hint,
            "workspace/didChangeConfiguration": lambda _: None,
            "workspace/didChangeWatchedFiles": self._look_again,
        }
        if model is not None:
            threading.Thread(target=self._count, args=(model,), daemon=True).start()

    @property
    def unsettled(self) -> bool:
        """Some text was not looked at as a whole since it changed."""
        return any(not one.settled for one in self._documents.values())

    def settle(self) -> None:
        """Look at whole texts."""
        for one in self._documents.values():
            if one.settled:
                continue
            before = one.found
            one.settle(known_schema())
            if one.found != before:
                self._publish(one)

    def _count(self, model: Path) -> None:
        try:
            self._facts = model_facts(model)
        except (ModelError, QccError, OSError) as error:
            message = error.message if isinstance(error, ModelError) else str(error)
            self._send({"method": "window/showMessage", "params": {"type": 2, "message": message}})
            return
        self._send({"id": "hints", "method": "workspace/inlayHint/refresh"})

    def _open(self, given: Message) -> None:
        told = given["textDocument"]
        one = Document(told["uri"], str(told["text"]).replace("\r\n", "\n"), told.get("version"))
        self._documents[one.uri] = one
        one.settle(known_schema())
        self._publish(one)

    def _change(self, given: Message) -> None:
        one = self._document(given)
        one.change(given["contentChanges"], given["textDocument"].get("version"), known_schema())
        self._publish(one)

    def _close(self, given: Message) -> None:
        one = self._documents.pop(given["textDocument"]["uri"], None)
        if one is not None:
            self._publish(replace(one, found=[], version=None))

    def _look_again(self, _given: Message) -> None:
        """A file has changed, which open ones may use."""
        for one in self._documents.values():
            one.settled = False

    def _document(self, given: Message) -> Document:
        return self._documents[given["textDocument"]["uri"]]

    def _publish(self, one: Document) -> None:
        listed = [_diagnostic(found, one) for found in one.found]
        told = {"uri": one.uri, "diagnostics": listed} | ({} if one.version is None else {"version": one.version})
        self._send({"method": "textDocument/publishDiagnostics", "params": told})

    def _complete(self, given: Message) -> list[Message]:
        one = self._document(given)
        offset = one.offset(given["position"])
        start, _ = word_span(one.text, offset)
        where = {"start": position(one.source, start), "end": position(one.source, offset)}
        return [_item(found, at, where) for at, found in enumerate(completions(one, offset, known_schema()))]

    def _hover(self, given: Message) -> Message | None:
        one = self._document(given)
        text = explained(one, one.offset(given["position"]), known_schema())
        return None if text is None else {"contents": {"kind": "markdown", "value": f"```text\n{text.rstrip()}\n```"}}

    def _define(self, given: Message) -> Message | None:
        one = self._document(given)
        found = definition(one, one.offset(given["position"]), known_schema())
        return None if found is None else _location(found, one)

    def _refer(self, given: Message) -> list[Message]:
        one = self._document(given)
        return [_location(span, one) for span in uses(one, one.offset(given["position"]), known_schema())]

    def _rename(self, given: Message) -> Message:
        one = self._document(given)
        edits = rename(one, one.offset(given["position"]), given["newName"], known_schema())
        return {"changes": {one.uri: [_edit(edit) for edit in edits]}}

    def _format(self, given: Message) -> list[Message]:
        one = self._document(given)
        try:
            text = format_source(one.text, one.source.name)
        except QccError:
            return []  # which is told as diagnostics
        whole = TextEdit(Span(one.source, 0, len(one.text)), text)
        return [] if text == one.text else [_edit(whole)]

    def _act(self, given: Message) -> list[Message]:
        one = self._document(given)
        first, last = (one.offset(given["range"][edge]) for edge in ("start", "end"))
        if not one.settled:
            one.settle(known_schema())
        ours = one.source
        found = []
        for fault in one.found:
            span = fault.span
            if span is None or span.source.name != ours.name or span.start > last or span.end < first:
                continue
            for fix in fixes(
                fault, one.found, lambda text: faults(replace(ours, text=text), known_schema(), one.folder)[1]
            ):
                edits = {"changes": {one.uri: [_edit(edit) for edit in fix.edits]}}
                told = [_diagnostic(fault, one)]
                found.append({"title": fix.title, "kind": "quickfix", "diagnostics": told, "edit": edits})
        return found

    def _hint(self, given: Message) -> list[Message]:
        one = self._document(given)
        if not one.settled:
            one.settle(known_schema())
        counts = layer_counts(one, self._facts) if self._facts else []
        return [{"position": position(one.source, at), "label": label, "paddingLeft": True} for at, label in counts]


def _diagnostic(one: Diagnostic, document: Document) -> Message:
    """A diagnostic as the protocol has it; what is wrong in a file that is used is told where it is used."""
    span, message = one.span, one.message
    if span is not None and span.source.name != document.source.name:
        message = f"{span.location}: {message}"
        span = _use_of(span, document)
    lines = [message, *(f"{label}: {text}" for label, text in (("note", one.note), ("help", one.help)) if text)]
    place = span if span is not None else Span(document.source, 0, 0)
    related = [{"location": _location(other.span, document), "message": other.message} for other in one.related]
    return {
        "range": span_range(place),
        "severity": SEVERITIES[one.severity],
        "code": one.code,
        "source": "qcc",
        "message": "\n".join(lines),
        **({"relatedInformation": related} if related else {}),
    }


def _use_of(span: Span, document: Document) -> Span | None:
    name = Path(span.source.name).name
    at = next((at for word in (f'"{name}"', f'"{Path(name).stem}"') if (at := document.text.find(word)) >= 0), None)
    return None if at is None else Span(document.source, at, at + len(name))


def _item(found: Completion, at: int, where: Message) -> Message:
    return {
        "label": found.label,
        "kind": SORTS[found.sort],
        "detail": found.detail,
        "sortText": f"{at:04}",
        "filterText": found.label,
        "textEdit": {"range": where, "newText": found.label + found.behind},
    }


def _edit(edit: TextEdit) -> Message:
    return {"range": span_range(edit.span), "newText": edit.text}


def _location(span: Span, document: Document) -> Message:
    source = span.source
    path = preset_path(Path(source.name).stem) if source.preset else source.path
    uri = document.uri if path is None or path == path_of(document.uri) else path.resolve().as_uri()
    return {"uri": uri, "range": span_range(span)}
