"""Diagnostics as SARIF 2.1.0, which code scanning reads."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from qcc.dsl.diagnostics.diagnostic import Diagnostic, Fix, Related
from qcc.dsl.diagnostics.source import Span

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_Json = dict[str, Any]


def sarif(diagnostics: Sequence[Diagnostic]) -> _Json:
    """One run of qcc, each code a rule of it."""
    codes = sorted({one.code for one in diagnostics})
    rules = [{"id": code, "help": {"text": f"`qcc explain {code}` tells what it means"}} for code in codes]
    driver = {"name": "qcc", "rules": rules}
    results = [_result(one, codes.index(one.code)) for one in diagnostics]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(one: Diagnostic, rule: int) -> _Json:
    lines = [one.message, *(f"{label}: {text}" for label, text in (("note", one.note), ("help", one.help)) if text)]
    entry: _Json = {"ruleId": one.code, "ruleIndex": rule, "level": str(one.severity)}
    entry["message"] = {"text": "\n".join(lines)}
    if one.span is not None:
        entry["locations"] = [{"physicalLocation": _place(one.span)}]
    if one.related:
        entry["relatedLocations"] = [_related(other, at) for at, other in enumerate(one.related, 1)]
    if one.fixes:
        entry["fixes"] = [_fix(fix) for fix in one.fixes]
    return entry


def _related(other: Related, number: int) -> _Json:
    return {"id": number, "message": {"text": other.message}, "physicalLocation": _place(other.span)}


def _fix(fix: Fix) -> _Json:
    changes: dict[str, list[_Json]] = {}
    for edit in fix.edits:
        change = {"deletedRegion": _region(edit.span), "insertedContent": {"text": edit.text}}
        changes.setdefault(_uri(edit.span), []).append(change)
    listed = [{"artifactLocation": {"uri": uri}, "replacements": edits} for uri, edits in changes.items()]
    return {"description": {"text": fix.title}, "artifactChanges": listed}


def _place(span: Span) -> _Json:
    return {"artifactLocation": {"uri": _uri(span)}, "region": _region(span)}


def _uri(span: Span) -> str:
    return quote(span.source.name.replace("\\", "/"), safe="/:.<>-")


def _region(span: Span) -> _Json:
    last = Span(span.source, span.end, span.end)
    return {
        "startLine": span.line,
        "startColumn": span.column,
        "endLine": last.line,
        "endColumn": last.column,
    }
