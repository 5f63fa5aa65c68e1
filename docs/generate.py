"""Write what is made from definitions: ``passes.md``, ``diagnostics.md``, the picture of ``axes.md``, the tables of
grammars, the schema that policies are checked by, and what editors colour and offer.

    python docs/generate.py [--check]

With --check nothing is written, and the exit status is 1 if a page is out of date.
"""

import json
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx.parser

from qcc.compiler.editor.known import WRITTEN
from qcc.compiler.editor.manual import entries
from qcc.compiler.editor.textmate import grammar, snippets
from qcc.compiler.files.open_model import open_model
from qcc.compiler.inspect.picture import draw
from qcc.compiler.inspect.survey import Survey
from qcc.compiler.plan import read_text
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.diagnostic import Diagnostic, Severity
from qcc.dsl.diagnostics.pages import Example, Page, all_codes, page
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.load import load_text
from qcc.dsl.policy.frozen import freeze
from qcc.dsl.syntax import build_tree

DOCS = Path(__file__).parent
VSCODE = DOCS.parent / "editors" / "vscode"
FAMILIES = {
    "Q1": "Syntax",
    "Q2": "Names and types",
    "Q3": "The policy against the model",
    "Q4": "Models, data and files",
    "Q5": "Kernels",
    "Q6": "Plans, structure and verification",
    "Q7": "More of plans, structure and verification",
}
EXAMPLE = re.compile(r"```qpolicy[^\n]*\n(.*?)```", re.DOTALL)


def passes_page() -> str:
    """Everything that a policy may name, with its manual page."""
    lines = ["# Passes, properties, formats and bounds", ""]
    lines += ["Made from the definitions by `python docs/generate.py`; `qcc passes NAME` prints the same.", ""]
    for section, members in groupby(entries(), key=lambda entry: entry.section):
        lines += [f"## {section[0].upper()}{section[1:]}", ""]
        for entry in members:
            lines += [f"### {entry.name}", "", "```text", entry.page().rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def diagnostics_page() -> str:
    """Every diagnostic's page, behind a list of them all."""
    pages = [page(code) for code in all_codes()]
    lines = ["# Diagnostics", ""]
    lines += ["Made from `dsl/pages/` by `python docs/generate.py`; `qcc explain CODE` prints one.", ""]
    for family, members in groupby(pages, key=lambda one: one.code[:2]):
        lines += [f"**{family}: {FAMILIES[family]}**", "", "| Code | Name | |", "|---|---|---|"]
        lines += [f"| [{one.code}](#{anchor(one)}) | {one.name} | {_summary(one)} |" for one in members]
        lines.append("")
    lines += [_page(one) for one in pages]
    return "\n".join(lines).rstrip() + "\n"


def write_block(path: Path) -> None:
    """Write the model of ``block.txt``; its weights are drawn, for only their shapes matter."""
    model = onnx.parser.parse_model((DOCS / "block.txt").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    for value in model.graph.value_info:
        shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
        drawn = rng.standard_normal(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(drawn, value.name))
    del model.graph.value_info[:]
    onnx.save(model, path)


def block_picture() -> str:
    """The channels of ``block.txt``, as ``qcc inspect --axes --picture`` draws them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "block.onnx"
        write_block(path)
        return draw(Survey(open_model(path).graph), path.name)


def anchor(one: Page) -> str:
    """The fragment of a page's heading."""
    return f"{one.code}-{one.name}".lower()


def pages() -> dict[Path, str]:
    """The generated pages by their paths."""
    return {
        DOCS / "passes.md": passes_page(),
        DOCS / "diagnostics.md": diagnostics_page(),
        DOCS / "block.svg": block_picture(),
        **{one.tables_path: one.tables() for one in (build_tree.GRAMMAR, read_text.GRAMMAR)},
        VSCODE / "syntaxes" / "qpolicy.tmLanguage.json": _json(grammar(schema())),
        VSCODE / "snippets" / "qpolicy.json": _json(snippets(schema())),
        WRITTEN: _json(freeze(schema())),
    }


def _json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write, or check."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" in sys.argv[1:]:
            print(f"{path.name} is out of date: run python docs/generate.py")
        else:
            path.write_text(pages()[path], encoding="utf-8")
            print(f"wrote {path.name}")
    return int(bool(stale) and "--check" in sys.argv[1:])


def _summary(one: Page) -> str:
    """The page's first sentence."""
    paragraph = one.text.split("\n\n")[1].replace("\n", " ")
    return re.split(r"(?<=\.) ", paragraph)[0].replace("|", "\\|")


def _page(one: Page) -> str:
    """A page one level deeper, each example fenced with what it is known to give."""
    fences = iter((_fence(one.wrong), _fence(one.right)))
    text = EXAMPLE.sub(lambda found: f"```{next(fences)}\n{found[1]}```", one.text)
    return re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE)


def _fence(example: Example) -> str:
    """``qpolicy error Q202``, as the tests read it; ``text`` where it takes more than the policy to tell."""
    definitions = [f"-D {name}={value}" for name, value in example.definitions]
    found = list(_diagnose(example))
    codes = {one.code for one in found}
    if not found:
        return " ".join(["qpolicy", *definitions])
    if len(codes) > 1 or example.needs:
        return "text"
    kind = "error" if any(one.severity is Severity.ERROR for one in found) else "warning"
    return " ".join(["qpolicy", kind, *codes, *definitions])


def _diagnose(example: Example) -> Iterator[Diagnostic]:
    report = Diagnostics()
    try:
        load_text(example.text, schema(), definitions=dict(example.definitions), report=report)
    except QccError as error:
        yield from error.diagnostics
    yield from report.warnings


if __name__ == "__main__":
    sys.exit(main())
