"""The documentation as a site: the same pages in HTML, which ask nothing of any network.

    python docs/build_site.py FOLDER

Every page of `docs`, the README, the examples and the changelog become a page; diagnostics get one each, and the
grammar is drawn (`grammar_page.py`). Links between pages stay links; those to sources are told by their names. What is
made depends on the pages alone. Needs markdown-it-py, Pygments and railroad-diagrams (`pip install 'qcc[dev]'`).
"""

import html
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import ClassVar

from grammar_page import grammar_page
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import RegexLexer, words
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Text
from pygments.util import ClassNotFound

from qcc.dsl.diagnostics.pages import all_codes

DOCS = Path(__file__).parent
ROOT, ASSETS = DOCS.parent, DOCS / "assets"
TUTORIALS = "int8", "microcontroller", "language-model", "pytorch", "from-other-tools"
GROUPS: Mapping[str, Sequence[str]] = {
    "Start": ("README.md", *(f"docs/tutorials/{name}.md" for name in TUTORIALS), "examples/README.md"),
    "Use": (
        *("docs/language.md", "docs/passes.md", "docs/formats.md", "docs/diagnostics.md", "docs/analysis.md"),
        *(
            "docs/recipes.md",
            "docs/deployment.md",
            "docs/pytorch.md",
            "docs/adapters.md",
            "docs/packs.md",
            "docs/tables.md",
        ),
        *("docs/attention.md", "docs/editors.md", "docs/translate.md"),
    ),
    "Facts": ("docs/benchmarks.md", "docs/comparison.md", "CHANGELOG.md"),
    "Inside": ("docs/architecture.md", "docs/axes.md", "docs/kernels.md", "docs/decisions.md", "CONTRIBUTING.md"),
}
"""Where pages stand in the list; those that no pattern names stand at the end of `Use`."""
CODE = re.compile(r"^## (Q\d+): ", re.MULTILINE)
SUMMARY = 160  # characters that the search tells of a heading


class PolicyLexer(RegexLexer):
    """Policies, told apart well enough for colours."""

    name = "qpolicy"
    statements: ClassVar = (
        "qpolicy use param target calibrate graph adapter let rule budget minimize verify export depth"
    )
    tokens: ClassVar = {
        "root": [
            (r"#[^\n]*", Comment),
            (r'"[^"\n]*"', String),
            (words(statements.split(), prefix=r"(?m)^\s*", suffix=r"\b"), Keyword),
            (words(("and", "or", "not"), prefix=r"\b", suffix=r"\b"), Operator.Word),
            (r"[a-z_]+(?=\s*=[^=])", Name.Attribute),
            (r"\$\w+", Name.Variable),
            (r"[+-]?\d[\w.]*%?", Number),
            (r"[<>=!~|]+", Operator),
            (r"\w+|.|\n", Text),
        ]
    }


@dataclass(frozen=True)
class SitePage:
    """A page.

    Args:
        source: of its Markdown, relative to the root.
        out: of its HTML, relative to the site.
        text: in Markdown.
        group: that it stands in; empty for pages that the list leaves out.
    """

    source: str
    out: str
    text: str
    group: str = ""

    @property
    def title(self) -> str:
        """Its first heading."""
        found = re.search(r"^# (.+)$", self.text, re.MULTILINE)
        return re.sub(r"[`*]", "", found[1]) if found else self.source


@dataclass(frozen=True)
class Heading:
    """A heading of a page, and what follows it."""

    level: int
    anchor: str
    text: str
    summary: str


def site_pages() -> list[SitePage]:
    """All pages, in the order of the list."""
    found = list[SitePage]()
    for group, patterns in GROUPS.items():
        paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
        if group == "Use":
            named = {path for all_ in GROUPS.values() for one in all_ for path in ROOT.glob(one)}
            paths += [path for path in sorted(DOCS.glob("*.md")) if path not in named]
        found += [_page(path, group) for path in paths]
        if group == "Use":
            found.append(SitePage("docs/grammar.md", "grammar.html", grammar_page(), group))
    return [*found, *_diagnostics(DOCS / "diagnostics.md")]


def _page(path: Path, group: str) -> SitePage:
    source = path.relative_to(ROOT).as_posix()
    out = (
        "index" if source == "README.md" else source.removeprefix("docs/").removesuffix(".md").replace("/", "-").lower()
    )
    text = path.read_text(encoding="utf-8")
    if source == "docs/diagnostics.md":
        text = text[: CODE.search(text).start()] if CODE.search(text) else text  # type: ignore[union-attr]
        text = re.sub(r"\(#(q\d+)-[^)]*\)", r"(\1.html)", text)
    return SitePage(source, f"{out}.html", text, group)


def _diagnostics(path: Path) -> Iterator[SitePage]:
    """A page for every code."""
    whole = path.read_text(encoding="utf-8")
    starts = [*(found.start() for found in CODE.finditer(whole)), len(whole)]
    for start, end in pairwise(starts):
        code, text = whole[start + 3 : start + 7], re.sub(r"(?m)^#(#+ )", r"\1", whole[start:end])
        yield SitePage("docs/diagnostics.md", f"{code.lower()}.html", text)


class Site:
    """The site in a folder."""

    def __init__(self, pages: Sequence[SitePage]) -> None:
        self._pages = pages
        self._outs = {page.source: page.out for page in reversed(pages) if page.group}
        self._markdown = MarkdownIt("commonmark", {"html": True, "highlight": _coloured}).enable(["table"])
        folder = FileSystemLoader(ASSETS)
        self._template = Environment(loader=folder, autoescape=True, trim_blocks=True).get_template("page.html")

    def write(self, folder: Path) -> None:
        """Write all of it."""
        folder.mkdir(parents=True, exist_ok=True)
        found = list[dict[str, str]]()
        shown = [page for page in self._pages if page.group]
        groups = {group: list(ones) for group, ones in groupby(shown, key=lambda page: page.group)}
        for page in self._pages:
            body, headings = self.render(page)
            made = self._template.render(
                page=page, groups=groups, body=body, headings=[h for h in headings if h.level == 2]
            )
            (folder / page.out).write_text(made, encoding="utf-8")
            found += [
                {"page": page.title, "at": f"{page.out}#{one.anchor}", "title": one.text, "text": one.summary}
                for one in headings
            ]
        (folder / "index.js").write_text(
            f"const INDEX = {json.dumps(found, separators=(',', ':'))};\n", encoding="utf-8"
        )
        for name in ("site.css", "site.js"):
            shutil.copyfile(ASSETS / name, folder / name)
        styles = (("default", "pre"), ("github-dark", ".dark pre"))
        colours = [HtmlFormatter(style=style).get_style_defs(scope) for style, scope in styles]
        (folder / "code.css").write_text("\n".join(colours) + "\n", encoding="utf-8")
        for picture in sorted(DOCS.glob("*.svg")):
            shutil.copyfile(picture, folder / picture.name)

    def render(self, page: SitePage) -> tuple[str, list[Heading]]:
        """The page's body in HTML, and its headings."""
        tokens = self._markdown.parse(page.text)
        headings = list(_anchored(tokens))
        for token in tokens:
            for inner in token.children or ():
                self._lead(page, inner)
        return self._markdown.renderer.render(tokens, self._markdown.options, {}), headings

    def _lead(self, page: SitePage, token: Token) -> None:
        """A link to another page's HTML; one to a source leads nowhere, and tells where that is."""
        if token.type != "link_open":
            return
        target, _, anchor = str(token.attrs["href"]).partition("#")
        if not target or re.match(r"[a-z]+:", target) or target.endswith(".html"):
            return
        path = (ROOT / page.source).parent.joinpath(target).resolve()
        source = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else target
        code = re.match(r"q\d+(?=-)", anchor)
        if source in self._outs:
            out = f"{code[0]}.html" if source == "docs/diagnostics.md" and code else self._outs[source]
            token.attrs["href"] = out + (f"#{anchor}" if anchor and not code else "")
        else:
            token.attrs = {"class": "source", "title": f"in the repository: {source}"}


def _coloured(code: str, language: str, _attributes: str) -> str:
    """A block of code in spans; of languages that are not known, as it is."""
    try:
        lexer = PolicyLexer() if language == "qpolicy" else get_lexer_by_name(language or "text")
    except ClassNotFound:
        return ""
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))


def _anchored(tokens: Sequence[Token]) -> Iterator[Heading]:
    """Give headings their anchors, as repositories have them."""
    seen = dict[str, int]()
    for at, token in enumerate(tokens):
        if token.type != "heading_open":
            continue
        text = "".join(one.content for one in tokens[at + 1].children or ())
        plain = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        count = seen[plain] = seen.get(plain, -1) + 1
        anchor = f"{plain}-{count}" if count else plain
        token.attrs["id"] = anchor
        after = next((one.content for one in tokens[at + 2 :] if one.type == "inline"), "")
        yield Heading(int(token.tag[1:]), anchor, text, re.sub(r"[`*\[\]]|\(\S+\)", "", after)[:SUMMARY])


def main(words_given: Sequence[str]) -> int:
    """Write the site."""
    if len(words_given) != 1:
        print(__doc__)
        return 2
    pages = site_pages()
    missing = set(all_codes()) - {page.out.removesuffix(".html").upper() for page in pages}
    assert not missing, f"python docs/generate.py first: {html.escape(str(missing))}"
    Site(pages).write(Path(words_given[0]))
    print(f"{len(pages)} pages in {words_given[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
