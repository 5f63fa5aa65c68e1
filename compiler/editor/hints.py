"""How many layers of a model each rule matches, told behind its selector."""

from collections.abc import Sequence
from pathlib import Path

from qcc.compiler.editor.document import Document
from qcc.dsl.diagnostics.source import Span
from qcc.dsl.policy.select import SUBJECTS, Facts, classes, matches


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
    found = []
    for rule in document.policy.rules:
        span = rule.selector.span
        if span.source.name != document.source.name or not _still(document, span):
            continue
        other = next(iter(classes(rule.selector).intersection(SUBJECTS)), "")
        met = [layers for layers in known if bool(layers[0].kinds.intersection(SUBJECTS)) == bool(other)]
        count = sum(any(matches(rule.selector, one) for one in layers) for layers in met)
        found.append((span.end, f" {count:,} {other or 'layer'}{'' if count == 1 else 's'}"))
    return found


def _still(document: Document, span: Span) -> bool:
    return document.text[span.start : span.end] == span.text
