"""How many layers of a model each rule matches, told behind its selector."""

from collections.abc import Sequence
from pathlib import Path

from qcc.compiler.editor.document import Document
from qcc.compiler.editor.known import known_schema
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.policy import Rule
from qcc.dsl.policy.select import Facts, classes, matches


def model_facts(path: Path) -> list[list[Facts]]:
    """What selectors can know of each weight's layers of a model.

    Raises:
        ModelError: there is none that can be read.
    """
    from qcc.compiler.files.open_model import open_model  # loads onnx
    from qcc.compiler.plan.cascade import facts, other_facts

    graph = open_model(path).graph
    return [*facts(graph.weights(), given=False), *other_facts(graph)]


def layer_counts(document: Document, known: Sequence[Sequence[Facts]]) -> list[tuple[int, str]]:
    """Behind which place what is to be told; of the last text in which nothing was wrong, if it is still that."""
    if document.policy is None or not document.settled:
        return []
    found, subjects = [], known_schema().subjects
    for rule in document.policy.rules:
        span = rule.selector.span
        if span.source.name != document.source.name or not _still(document, span):
            continue
        named = classes(rule.selector)
        others = [one for one in subjects if one in named]
        whole = not others or len(named) > len(others)
        layers = [one for one in known if not one[0].kinds.intersection(subjects)]
        told = [_told(rule, layers, "layer")] if whole else []
        told += [_told(rule, [ones for ones in known if one in ones[0].kinds], one) for one in others]
        found.append((span.end, f" {', '.join(told)}"))
    return found


def _told(rule: Rule, known: Sequence[Sequence[Facts]], what: str) -> str:
    """How many of some a rule matches."""
    count = sum(any(matches(rule.selector, one) for one in ones) for ones in known)
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _still(document: Document, span: Span) -> bool:
    return document.text[span.start : span.end] == span.text
