"""The documentation as a site: every page is there, every link leads somewhere, and nothing is asked of a network."""

import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qcc.dsl.diagnostics.pages import all_codes

pytest.importorskip("railroad")
pytest.importorskip("markdown_it")

DOCS = Path(__file__).parent.parent / "docs"
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class _Found(HTMLParser):
    """Links, anchors, and what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.links, self.anchors, self.loaded = set[str](), set[str](), set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given["id"]} if "id" in given else set()
        self.links |= {given[name] for name in ("href", "xlink:href") if tag == "a" and name in given}
        self.loaded |= {given[LOADED[tag]]} if LOADED.get(tag) in given else set()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(DOCS), *sys.path])
        assert runpy.run_path(str(DOCS / "build_site.py"))["main"]([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def found(site: Path) -> dict[str, _Found]:
    pages = {}
    for path in sorted(site.glob("*.html")):
        pages[path.name] = _Found()
        pages[path.name].feed(path.read_text(encoding="utf-8"))
    return pages


def test_every_page_is_there(found: dict[str, _Found]) -> None:
    for path in DOCS.rglob("*.md"):
        assert "-".join(path.relative_to(DOCS).with_suffix("").parts).lower() + ".html" in found, path
    assert {f"{code.lower()}.html" for code in all_codes()} < set(found)
    assert {"index.html", "grammar.html", "changelog.html"} < set(found)


def test_links_lead_somewhere(found: dict[str, _Found]) -> None:
    broken = []
    for name, page in found.items():
        for link in page.links:
            target, _, anchor = link.partition("#")
            if target.startswith(("http:", "https:", "mailto:")):
                continue
            other = found.get(target or name)
            if other is None or (anchor and anchor not in other.anchors):
                broken.append((name, link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site: Path, found: dict[str, _Found]) -> None:
    loaded = {one for page in found.values() for one in page.loaded}
    assert loaded and all((site / one).is_file() for one in loaded), loaded
    assert "http" not in (site / "site.css").read_text(encoding="utf-8")


def test_all_rules_of_the_grammar_are_drawn(site: Path) -> None:
    text = (site / "grammar.html").read_text(encoding="utf-8")
    grammar = (DOCS.parent / "dsl" / "syntax" / "grammar.lark").read_text(encoding="utf-8")
    rules = [line.split(":")[0].lstrip("?_") for line in grammar.splitlines() if line[:1].islower() or line[:1] in "?_"]
    rules = [rule for rule in rules if rule.islower()]
    assert rules and text.count("<svg") == len(rules)
    assert all(f'id="{rule}"' in text for rule in rules)
