"""The report's section on the passes that change the graph: what they did, and how well they kept their word."""

from collections.abc import Iterable

from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.metrics.texts import ratio_text, share_text
from qcc.compiler.report.page.tables import Cell, count, folded, table
from qcc.compiler.report.result import Result
from qcc.compiler.report.text import escaped, file_names
from qcc.passes.contract.contract import Edit


def rewrites_section(result: Result) -> str:
    """A row a pass, then what each did, site by site."""
    text = (
        "<p>These passes change the model before its weights are stored in fewer bits. The graph was run before and "
        "after each of them; the error is the largest difference over the largest value, of all outputs and samples. "
        "Passes that cut something away are held to the graph before them with zeros in the place of what goes, all "
        "others leave the function as it is.</p>"
    )
    head = [("", "pass"), ("n", "sites"), ("n", "refused"), ("n", "largest relative error"), ("n", "allowed")]
    done = table("Rewrites", head, [_row(row, result) for row in result.rewrites])
    lists = [part for row in result.rewrites for part in _lists(row, result)]
    return "\n".join([text, done, *lists])


def _row(row: RewriteRow, result: Result) -> list[Cell]:
    shown = row.treated or row.action == "clean"
    changed = f", {share_text(row.changed)} of whole numbers changed" if row.changed else ""
    return [
        ("", f"<code>{_shown(row.action, result)}</code>"),
        ("n", f"{len(row.treated):,}"),
        ("n", f"{len(row.refused):,}"),
        ("n", ratio_text(row.error) + changed if shown else "–"),
        ("n", ratio_text(row.bound) if shown else "–"),
    ]


def _lists(row: RewriteRow, result: Result) -> Iterable[str]:
    for word, edits in (("", row.treated), (" refused", row.refused)):
        if edits:
            summary = f"<code>{_shown(row.action, result)}</code>: {count(len(edits), 'site')}{word}"
            yield folded(summary, [_edit(one, result) for one in edits])


def _edit(edit: Edit, result: Result) -> str:
    layers = ", ".join(f"<code>{_shown(name, result)}</code>" for name in edit.layers)
    after = f' <span class="soft">{layers}</span>' if layers else ""
    return f"<b>{_shown(edit.subject, result)}</b>: {_shown(edit.text, result)}{after}"


def _shown(text: str, result: Result) -> str:
    return escaped(file_names(text, result))
