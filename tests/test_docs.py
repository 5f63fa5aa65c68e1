"""The documentation is true: policies check, Python runs, links lead somewhere, generated pages are fresh."""

import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qcc.__main__ import main
from qcc.compiler.plan.catalog import schema
from qcc.dsl.diagnostics.diagnostic import Severity
from qcc.dsl.diagnostics.report import Diagnostics, QccError
from qcc.dsl.load import load_text
from qcc.dsl.syntax.format import format_source

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
POLICIES = sorted((ROOT / "examples").rglob("*.qpolicy"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FRAGMENTS = {"Q112", "Q240", "Q243"}  # a fragment may lack its first line, a use of what it names, and rules


@dataclass(frozen=True)
class Block:
    """A fenced block, with the words after its fence."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str


def blocks(page: Path, language: str) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        words = tuple(found["info"].split())
        if words[:1] == (language,):
            yield Block(page, text.count("\n", 0, found.start()) + 1, words[1:], found["body"])


def all_blocks(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, language)]


def place(block: object) -> str:
    assert isinstance(block, Block)
    return f"{block.page.relative_to(ROOT)}:{block.line}"


@pytest.mark.parametrize("block", all_blocks("qpolicy"), ids=place)
def test_policies_check(block: Block) -> None:
    at = block.words.index("-D") if "-D" in block.words else len(block.words)
    definitions = dict(word.split("=", 1) for word in block.words[at + 1 :: 2])
    report = Diagnostics()
    try:
        load_text(block.text, schema(), base=ROOT / "examples", definitions=definitions, report=report)
        found = report.warnings
    except QccError as error:
        found = tuple(error.diagnostics)
    kind, *codes = block.words[:at] or ("",)
    assert kind in ("", *Severity)
    assert {one.code for one in found} - FRAGMENTS | {one.code for one in found if one.code in codes} == set(codes)
    assert all(one.severity == kind for one in found if one.code in codes)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's first command was run."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "examples", folder / "examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = _command(ROOT / "README.md").split()
        assert main([*words[1:], "-q"]) == 0
    return folder


def _command(page: Path) -> str:
    """The first `qcc compile` of a page."""
    found = re.search(r"qcc compile examples/\S+ -p \S+", page.read_text(encoding="utf-8"))
    assert found is not None
    return found[0]


NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e-?\d+)?")
TIMES = re.compile(r"^(?:latency|time) .*\n(?: .*\n)*", re.MULTILINE)
"""The topics that are of the machine."""
LOOSE = 0.25
"""How far figures with a point may be off, which follow the processor's rounding; sizes and counts by `NEAR`."""
NEAR = 0.01


@pytest.mark.slow
def test_the_sample_output_is_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    page = ROOT / "README.md"
    shown = next(block for block in blocks(page, "text")).text
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    assert main(_command(page).split()[1:]) == 0
    printed = capsys.readouterr().out
    if request.config.getoption("--update-golden"):
        page.write_text(page.read_text(encoding="utf-8").replace(shown, printed), encoding="utf-8")
        return
    ours, theirs = (TIMES.sub("", text) for text in (shown, printed))
    for one, other in zip(ours.splitlines(), theirs.splitlines(), strict=True):
        assert NUMBER.sub("#", " ".join(one.split())) == NUMBER.sub("#", " ".join(other.split()))
        for left, right in zip(NUMBER.findall(one), NUMBER.findall(other), strict=True):
            far = LOOSE if "." in left else NEAR
            assert float(left.replace(",", "")) == pytest.approx(float(right.replace(",", "")), rel=far), one


PYTHON = [page for page in PAGES if any(block.words == ("run",) for block in blocks(page, "python"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs(page: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(compiled)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        if block.words == ("run",):
            exec(compile(block.text, place(block), "exec"), names)


CONSOLE = [block for block in all_blocks("console") if block.words == ("run",)]


@pytest.mark.slow
@pytest.mark.parametrize("block", CONSOLE, ids=place)
def test_commands_print_what_is_shown(
    block: Block, compiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(compiled)
    command, _, shown = block.text.removeprefix("$ qcc ").partition("\n")
    main(shlex.split(command))
    assert "".join(capsys.readouterr()) == shown


def test_other_python_parses() -> None:
    for block in all_blocks("python"):
        indent = re.match(" *", block.text)
        assert indent is not None
        lines = [line.removeprefix(indent[0]) for line in block.text.splitlines()]
        compile("\n".join(lines), place(block), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = [found["target"] for found in LINK.finditer(prose) if not _leads(page, found["target"])]
    assert broken == []


def _leads(page: Path, target: str) -> bool:
    """A target outside is taken for good; one of ours exists, with its heading."""
    if re.match(r"[a-z]+:", target):
        return True
    name, _, fragment = target.partition("#")
    path = page if not name else (page.parent / name).resolve()
    return path.exists() and (not fragment or fragment in _anchors(path))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_generated_pages_are_fresh() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    stale = [path.name for path, text in generated.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run python docs/generate.py"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_are_laid_out_and_check(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_source(text, path.name) == text
    assert main(["check", str(path)]) == 0
    told = capsys.readouterr().err
    # The data of an example without a model is the reader's to make.
    assert told == "" or (told.count("[Q") == 1 and told.startswith("warning[Q420]"))


def test_the_readme_shows_the_example_as_it_is() -> None:
    first = next(blocks(ROOT / "README.md", "qpolicy"))
    assert first.text == (ROOT / "examples" / "fashion" / "fashion.qpolicy").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smallest", "tenth", "vision"])
def test_examples_compile(name: str, compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = compiled / "examples" / "fashion" / "fashion-cnn.onnx"
    policy = compiled / "examples" / f"{name}.qpolicy"
    data = compiled / "examples" / "fashion" / "calibration.npz"
    words = [str(model), "-p", str(policy), "--data", str(data), "-o", str(compiled / f"{name}.onnx"), "-q"]
    assert main(["compile", *words]) == 0, capsys.readouterr().err
