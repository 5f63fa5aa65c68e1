"""A plan prints and parses back, whatever its passes, formats, options, activations and phases; bad text is told."""

import dataclasses
import json
from math import ceil
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings

import qcc
from qcc.__main__ import main
from qcc.compiler.plan.catalog import activations, passes, rewrites, roundings
from qcc.compiler.plan.costs import METERED
from qcc.compiler.plan.formats import compositions, formats
from qcc.compiler.plan.plan import Allocate, Candidate, Kept, Kernels, Limit, OpenChoice, Plan, Step
from qcc.compiler.plan.read_text import from_text
from qcc.compiler.plan.text import to_text
from qcc.dsl.diagnostics.source import Source
from qcc.dsl.policy.options import Option, options_of
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, PLAIN_NAMES, scales
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block
from qcc.ir.encoding.format import MID, Spelled
from qcc.ir.forms.find import forms
from qcc.passes.encode import Encode
from tests.onnx_models import parse, random

TERMS = (
    "target cpu(avx2, avx512-vnni)",
    'calibrate "a \\"b\\" \u2028 #.npz" { samples = 3, seed = 5 }',
    "verify { cosine >= 0.99, sqnr >= 12 dB, relative_error <= 12.3% }",
    "export { opset = 21, external_data = never, kernels = none, activations = exact, rows = 4 }",
)
NAMES = st.one_of(st.sampled_from(["keep", "choose x", "#", "values", "stored", ":", "limit", "", "a.b#2"]), st.text())
AMOUNTS = st.floats(0, 1e30, allow_nan=False)
SHARES = st.floats(1e-4, 1)
BLOCKS = st.one_of(
    st.sampled_from([TENSOR, CHANNEL]),
    st.builds(Block, st.just(1), st.integers(2, 1 << 20)),
    st.builds(Block, st.integers(2, 64), st.integers(1, 64)),
)


@st.composite
def simple(draw: st.DrawFn) -> Encoding:
    family = draw(st.sampled_from(list(formats().values())))
    bits = draw(st.integers(*family.bits)) if family.bits else None
    block = draw(st.none() | BLOCKS) if "group" in family.words else None
    asym = draw(st.booleans()) if "asym" in family.words else False
    scale = draw(st.sampled_from((*PLAIN_NAMES, *(scales() if not asym else ())))) if family.scale else None
    mid = draw(st.booleans()) if MID in family.words and not asym else False
    variant = draw(st.none() | st.sampled_from(family.variants)) if family.variants else None
    return family.encoding(Spelled(bits, block, asym, mid, variant, scale))


@st.composite
def composed(draw: st.DrawFn, inner: st.SearchStrategy[Encoding]) -> Encoding:
    found = compositions()[draw(st.sampled_from(sorted(compositions())))]
    values = {
        name: draw(_argument(option, inner))
        for name, option in options_of(found).items()
        if option.required or draw(st.booleans())
    }
    try:
        return found(**values).encoding()
    except ValueError:
        assume(False)
        raise


def _argument(option: Option, inner: st.SearchStrategy[Encoding]) -> st.SearchStrategy[Any]:
    if option.kind == "format":
        return st.lists(inner, min_size=1, max_size=3).map(tuple) if option.many else inner | st.just(FLOAT32)
    if option.unit == "%":
        return SHARES
    if option.kind == "dims":
        return st.tuples(st.integers(2, 64), st.integers(1, 64))
    if option.kind == "words":
        return st.sampled_from(option.words)
    if option.kind == "str":
        return st.sampled_from(("pairs.npz", 'odd " \\ name.npz', ""))
    return st.integers(ceil(option.low or 1), min(int(option.high or 8), 8))


ENCODINGS = st.recursive(simple(), composed, max_leaves=4)
STORED = ENCODINGS.filter(lambda one: not one.undecodable)


def methods(kinds: dict[str, type]) -> st.SearchStrategy[Any]:
    return st.sampled_from(sorted(kinds)).flatmap(lambda name: options(kinds[name]))


@st.composite
def options(draw: st.DrawFn, method: type) -> Any:
    known = options_of(method)
    required = {name: _option(option) for name, option in known.items() if option.required}
    others = {name: _option(option) for name, option in known.items() if not option.required}
    values = draw(st.fixed_dictionaries(required, optional=others))
    try:
        return method(**values)
    except ValueError:
        assume(False)
        raise


def _option(option: Option) -> st.SearchStrategy[Any]:
    if option.kind == "format":
        return st.none() | simple()
    if option.kind == "method":
        return st.none() | methods(activations())
    low, high = option.low, option.high
    if option.kind == "words":
        return st.sampled_from(option.words)
    if option.kind == "bool":
        return st.booleans()
    if option.kind == "str":
        return st.sampled_from(("segments", 'odd " \\ name'))
    if option.kind == "int":
        return st.integers(int(low or 0), int(high or 1 << 20))
    assert option.kind == "float", f"draw values of {option}"
    return st.floats(low or 0, 1e6 if high is None else high)


ENCODES = st.builds(
    Encode, STORED, methods(roundings()), st.sampled_from(list(forms().values())), st.none() | methods(activations())
).filter(lambda one: one.activations is None or one.form.rounds)
PASSES = methods({name: found for name, found in passes().items() if found is not Encode})
SITES = st.sampled_from([one for family in rewrites().values() for one in family.values()]).flatmap(options)
COSTS = st.fixed_dictionaries({"size": AMOUNTS, "bits": AMOUNTS}, optional=dict.fromkeys(METERED, AMOUNTS))
CANDIDATES = st.one_of(
    st.builds(Candidate, ENCODES, NAMES, COSTS, NAMES), st.builds(Candidate, st.none(), NAMES, COSTS, st.just(""))
)


@st.composite
def steps(draw: st.DrawFn, names: list[str]) -> Step:
    """A step that treats some names, which it takes from the list where it stores them."""
    kind = draw(st.sampled_from(["encode", "pass", "site"]))
    if kind == "encode":
        taken = tuple(names.pop() for _ in range(draw(st.integers(0, min(3, len(names))))))
    else:
        taken = tuple(draw(st.lists(NAMES, max_size=3)))
    action = draw({"encode": ENCODES, "pass": PASSES, "site": SITES}[kind])
    count = len(taken)
    names_of = st.lists(NAMES, min_size=count, max_size=count).map(tuple)
    stored = st.lists(st.none() | STORED, min_size=count, max_size=count).map(tuple)
    encodings = draw(stored) if kind == "site" and draw(st.booleans()) else ()
    values = draw(names_of) if kind == "encode" and draw(st.booleans()) else ()
    return Step(action, taken, draw(names_of), encodings, values)


PROCESSORS = st.lists(st.sampled_from(["generic", "avx2", "avx512-vnni"]), min_size=1, unique=True).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(NAMES, unique=True, max_size=9))
    done = tuple(draw(steps(names)) for _ in range(draw(st.integers(0, 4))))
    kept = tuple(Kept(names.pop(), draw(NAMES)) for _ in range(draw(st.integers(0, min(2, len(names))))))
    allocate = None
    if draw(st.booleans()):
        limits = draw(st.lists(st.builds(Limit, NAMES, AMOUNTS, NAMES), max_size=2))
        listed = st.lists(CANDIDATES, min_size=1, max_size=3).map(tuple)
        open_ = tuple(OpenChoice(name, draw(listed)) for name in names)
        fixed = draw(st.dictionaries(st.sampled_from(["size", "bits", *METERED]), AMOUNTS))
        allocate = Allocate(draw(NAMES), tuple(limits), open_, fixed)
    kernels = draw(
        st.none() | st.builds(Kernels, st.just("cpu"), PROCESSORS, st.sampled_from(["int8", "bf16", "exact"]))
    )
    terms = draw(st.lists(st.sampled_from(TERMS), unique=True))
    return Plan(done, kept, allocate, kernels, tuple(sorted(terms, key=TERMS.index)))


def read(text: str) -> Plan:
    return from_text(Source("p.plan", text))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans())
def test_every_plan_prints_and_parses_back(plan: Plan) -> None:
    text = to_text(plan)
    assert read(text) == plan
    assert to_text(read(text)) == text


def test_every_part_of_a_plan_is_drawn() -> None:
    """A field that comes later must be printed, and drawn here."""
    fields = {one: [field.name for field in dataclasses.fields(one)] for one in (Plan, Step, Candidate, Encode)}
    assert fields == {
        Plan: ["steps", "kept", "allocate", "kernels", "terms"],
        Step: ["action", "weights", "sources", "encodings", "value_sources"],
        Candidate: ["action", "source", "costs", "value_source"],
        Encode: ["encoding", "rounding", "form", "activations"],
    }


def test_comments_and_blank_lines_say_nothing() -> None:
    plain = "plan 1\nclean\nkeep\n    w  none\n"
    spaced = '# a plan\n\nplan 1  # the first\n\n# cleaned\n  # really\nclean # all\n\nkeep\n\n\t"w" none # so\n\n# end'
    assert read(spaced) == read(plain) == read(plain.rstrip())


INT8 = "encode(int8 channel, rounding = nearest, form = decoded)"


@pytest.mark.parametrize(
    ("text", "code", "message", "help", "place"),
    [
        ("", "Q651", "expected `plan 1`, found the end of the text", "--emit plan", "1:1"),
        ("qpolicy 1\n", "Q651", "expected `plan 1`, found `q", "--emit plan", "1:1"),
        ("plan 2\n", "Q651", "unknown plan version `2`", "`plan 1`", "1:6"),
        ("plan 1\ncleen\n", "Q208", "unknown method of `plan`: `cleen`", "did you mean `clean`?", "2:1"),
        ("plan 1\nkeep\n    w\n", "Q651", "expected a name, found the end of the line", "", "3:6"),
        ("plan 1\nclean\n    w a b\n", "Q651", "found `b`", "", "3:9"),
        ("plan 1\n    w a\n", "Q651", "expected a line at the margin, found `w`", "", "2:5"),
        ("plan 1\npermute = magnitude(grop = 3)\n", "Q202", "unknown option of `magnitude`: `grop`", "", "2:21"),
        ("plan 1\npermut = magnitude\n", "Q651", "unknown pass `permut`", "did you mean `permute`?", "2:1"),
        (f"plan 1\n{INT8.replace('int8', 'int9')}\n", "Q204", "`int` has no 9 bits", "int8", "2:8"),
        (f"plan 1\n{INT8.replace('decoded', 'decode')}\n", "Q651", "unknown form `decode`", "`decoded`", "2:49"),
        (f"plan 1\n{INT8.replace('nearest', 'gptqq')}\n", "Q208", "unknown method of `rounding`", "`gptq`", "2:33"),
        ("plan 1\nencode int8 channel\n", "Q651", "in brackets", "encode(int8", "2:1"),
        ("plan 1\nencode\n", "Q651", "in brackets", "encode(int8", "2:1"),
        ("plan 1\nencode(int8 channel) wide\n", "Q651", "in brackets", "encode(int8", "2:1"),
        ("plan 1\nencode(int8 channel)\n", "Q651", "does not say its rounding", "encode(int8", "2:1"),
        (f"plan 1\n{INT8.replace('int8 channel', 'float')}\n", "Q651", "`float` is not encoded", "keep", "2:8"),
        (f"plan 1\n{INT8.replace('int8', 'int8 | int4')}\n", "Q651", "one format is expected", "", "2:8"),
        (f"plan 1\n{INT8[:-1]}\n", "Q651", "the line ends", "", "2:"),
        ("plan 1\ntarget onnxruntim\n", "Q226", "unknown target", "did you mean `onnxruntime`?", "2:8"),
        ("plan 1\nkernels int9 for cpu avx2\n", "Q651", "unknown activations `int9`", "`int8`", "2:9"),
        ("plan 1\nkernels bf16 for cpu avx3\n", "Q651", "unknown target `avx3`", "of it", "2:18"),
        ("plan 1\nkernels bf16 for onnxruntime avx2\n", "Q651", "no kernels for `onnxruntime(avx2)`", "of it", "2:18"),
        ("plan 1\nkernels bf16 for cpu avx2 armv8.2-dotprod\n", "Q651", "for one architecture", "of it", "2:18"),
        (f"plan 1\nchoose w\n    a size 1 bits 2: {INT8}\n", "Q651", "nothing says how", "allocate", ""),
        (f"plan 1\nallocate size\nchoose w\n    a size 1: {INT8}\n", "Q652", "its size and bits", "", ""),
        (f"plan 1\nallocate size\nchoose w\n    a sise 1: {INT8}\n", "Q652", "", "", ""),
        ("plan 1\nallocate size\n    limit size <= many  a\n", "Q651", "expected a number", "", "3:19"),
        ("plan 1\nallocate size\n    limit size <= 1e999  a\n", "Q651", "`1e999` is no number", "", "3:19"),
        ("plan 1\nkeep\n    w a\n    w b\n", "Q652", "a weight is named twice", "", ""),
        ('plan 1\nkeep\n    "\\x" b\n', "Q651", "bad text in quotes", "JSON", "3:5"),
        (f"plan 1\n{INT8}\n    a b values c\n    d e\n", "Q651", "say more than others", "", "2:1"),
        ("plan 1\nclean\n    w a stored int99\n", "Q204", "", "", "3:16"),
        ("plan 1\n" + "(" * 500, "Q651", "", "", "2:1"),
        ("plan 1\nfold_norm = on(" + "(" * 500 + "\n", "Q651", "", "", "2:"),
    ],
)  # fmt: skip
def test_bad_text_is_told(text: str, code: str, message: str, help: str, place: str) -> None:
    with pytest.raises(qcc.QccError) as caught:
        read(text)
    found = caught.value.diagnostics[0]
    assert found.code == code and message in found.message and help in (found.help or "")
    assert place in (found.span.location if found.span else "")


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutants_are_told_or_read(data: st.DataObject) -> None:
    nearest, decoded = roundings()["nearest"](), forms()["decoded"]
    encode = Step(Encode(formats()["int"].encoding(Spelled(4)), nearest, decoded), ("w",), ("p:1:2",))
    text = to_text(Plan((Step(passes()["clean"]()), encode), (Kept("v", "so it is"),), terms=TERMS))
    at, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 9))
    mutant = (
        text[:at]
        + data.draw(st.text(max_size=3) | st.sampled_from(["\n", "\n    ", '"', "(", "#"]))
        + text[at + length :]
    )
    try:
        plan = read(mutant)
    except qcc.QccError:
        return
    assert read(to_text(plan)) == plan


NET = """net (float[n,32] x) => (float[n,16] y) {
    h = MatMul(x, first)
    r = Relu(h)
    y = MatMul(r, second)
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("texts")
    onnx.save(parse(NET, {"first": random(32, 64), "second": random(64, 16)}), made / "net.onnx")
    rules = "rule linear { weights = int8 channel | int4 channel }\nbudget { bits <= 7 }\nverify { cosine >= 0.5 }\n"
    (made / "p.qpolicy").write_text(f"qpolicy 1\n{rules}", encoding="utf-8")
    return made


Captured = pytest.CaptureFixture[str]


def compiled(folder: Path, *options: str) -> int:
    return main(["compile", str(folder / "net.onnx"), *options])


@pytest.mark.slow
def test_the_command_prints_a_plan_that_it_runs(folder: Path, capsys: Captured) -> None:
    assert compiled(folder, "-p", str(folder / "p.qpolicy"), "-q", "-o", str(folder / "one.onnx")) == 0
    assert compiled(folder, "-p", str(folder / "p.qpolicy"), "--emit", "plan") == 0
    plan = folder / "net.plan"
    plan.write_text(capsys.readouterr().out, encoding="utf-8")
    assert compiled(folder, "--plan", str(plan), "-q", "-o", str(folder / "two.onnx")) == 0
    first, second = (json.loads((folder / f"{name}.lock").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert first["plan"] == second["plan"]
    weights = [
        {one.name: one.raw_data for one in onnx.load(folder / f"{n}.onnx").graph.initializer} for n in ("one", "two")
    ]
    assert weights[0] == weights[1]
    assert compiled(folder, "--plan", str(plan), "--emit", "plan") == 0
    assert capsys.readouterr().out == plan.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"plan 1\ncleen\n", "Q208"),
        (b"", "Q651"),
        (b"\x00\x01", "Q651"),
        (b"\xff\xfe", "Q431"),
        (b"{}", "Q431"),
        (b"[]", "Q431"),
    ],
)
def test_a_file_that_holds_no_plan_is_told(folder: Path, capsys: Captured, content: bytes, code: str) -> None:
    plan = folder / "bad.plan"
    plan.write_bytes(content)
    assert compiled(folder, "--plan", str(plan), "-o", str(folder / "no.onnx")) == 1
    assert f"error[{code}]" in capsys.readouterr().err
    assert not (folder / "no.onnx").exists()


def test_a_plan_is_not_overwritten(folder: Path, capsys: Captured) -> None:
    plan = folder / "out.onnx"
    plan.write_text("plan 1\nkeep\n    first a\n    second b\n", encoding="utf-8")
    assert compiled(folder, "--plan", str(plan), "-o", str(plan)) == 1
    assert "Q450" in capsys.readouterr().err
