"""What every pass owes: purity, a valid graph, its numerics kept, nothing left to do the second time."""

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings

from qcc.compiler.build.promises import broken_promise
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.statistics import layer_statistics
from qcc.compiler.plan.catalog import ON, keyword_of, passes, rewrites, roundings
from qcc.compiler.verify.translation import TOLERANCE, relative_error
from qcc.dsl.policy.options import Option, options_of
from qcc.ir.encoding.blocked import Blocked
from qcc.ir.encoding.blocks import CHANNEL, TENSOR, Block, group
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.errors import Refused
from qcc.ir.onnx.adapter import OnnxGraph
from qcc.passes.contract.contract import EVERYTHING, Context, Invariant, Pass, Phase, Restructure, Rewrite, Rounding
from qcc.passes.contract.moments import grams_of
from qcc.passes.encode import Encode
from qcc.passes.half.half import Half
from qcc.passes.rounding.gptq import Gptq, round_columns
from qcc.passes.rounding.nearest import Nearest
from qcc.passes.structure.channels import Channels
from tests.chooser import choose

WIDTH = 16
EXACT_TOLERANCE = 1e-5  # float32 sums of 16 terms on values of about 1
HALF_TOLERANCE = 5e-3  # ten roundings to eleven bits of values of about one, some subtracted from each other

BLOCKS = {
    "linear": "{y} = MatMul({x}, {w})",
    "shared": "{y} = MatMul({x}, shared)",
    "residual": "{y}a = MatMul({x}, {w})\n{y}b = Relu({y}a)\n{y} = Add({x}, {y}b)",
    "duplicate": "{y}a = MatMul({x}, {w})\n{y}b = MatMul({x}, {w})\n{y} = Sub({y}a, {y}b)",
    "identity": "{y}a = Identity({x})\n{y} = Tanh({y}a)",
    "transposed": "{y}t = Transpose<perm=[1,0]>({w})\n{y} = MatMul({x}, {y}t)",
    "dead": "{y}dead = MatMul({x}, {w})\n{y} = Sigmoid({x})",
}


def build(kinds: list[str], seed: int) -> OnnxGraph:
    """A chain of blocks as a model; weights are drawn from the seed."""
    lines = []
    for at, kind in enumerate(kinds):
        source = "x" if at == 0 else f"h{at - 1}"
        target = "y" if at == len(kinds) - 1 else f"h{at}"
        lines.append(BLOCKS[kind].format(x=source, y=target, w=f"w{at}"))
    body = "\n".join(lines)
    text = (
        f'<ir_version: 10, opset_import: ["" : 21]>\nchain (float[n,{WIDTH}] x) => (float[n,{WIDTH}] y) {{\n{body}\n}}'
    )
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    used = {name for node in model.graph.node for name in node.input}
    for name in sorted(used & {"shared", *(f"w{at}" for at in range(len(kinds)))}):
        array = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 4
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return OnnxGraph(ir.serde.deserialize_model(model), Path())


def run(graph: OnnxGraph) -> np.ndarray:
    """The output on fixed inputs."""
    x = np.random.default_rng(7).standard_normal((5, WIDTH)).astype(np.float32)
    return graph.runner(["x"], ["y"])({"x": x})["y"]


def dump(graph: OnnxGraph) -> bytes:
    """All of a graph, as bytes."""
    data: bytes = ir.serde.serialize_model(graph.model).SerializeToString(deterministic=True)
    return data


def instances(graph: OnnxGraph) -> list[tuple[Pass, tuple[str, ...]]]:
    """Every pass with options and targets that suit a graph."""
    found: list[tuple[Pass, tuple[str, ...]]] = []
    encoding = Blocked(IntGrid(4), group(8))
    for definition in passes().values():
        if definition is Encode:
            weights = graph.weights()
            forms = {weight.name: choose(weight, encoding).form for weight in weights}
            found += [(Encode(encoding, Nearest(), forms[one.name]), (one.name,)) for one in weights]
        elif definition is not Half:  # which treats a whole graph, not targets: see below
            found.append((definition(), ()))
    return found


REWRITES = [found for values in rewrites(Phase.REWRITE).values() for found in values.values()]
RESTRUCTURES = [found for values in rewrites(Phase.STRUCTURE).values() for found in values.values()]
EXAMPLES = {"int": 4, "float": 0.5, "bool": False, "str": "x", "dims": (4, 4)}


def example(option: Option) -> object:
    """A value for an option that must be given."""
    return option.words[0] if option.words else EXAMPLES[option.kind]


def rewritings(graph: OnnxGraph) -> Iterator[tuple[Rewrite, tuple[str, ...], Context]]:
    """Every rewriting pass, asked for on all weights, with what it may need."""
    names = tuple(weight.name for weight in graph.weights())
    x = np.random.default_rng(8).standard_normal((16, WIDTH)).astype(np.float32)
    found = layer_statistics(graph, Samples(({"x": x},), "drawn"), lambda *_: None, moments=names).moments
    context = Context(grams=grams_of(found), encodings=dict.fromkeys(names, Blocked(IntGrid(4), group(8))))
    for definition in REWRITES:
        assert issubclass(definition, Rewrite)
        given = {name: example(option) for name, option in options_of(definition).items() if option.required}
        yield definition(**given), names, context


CHAINS = st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5)


@pytest.mark.slow
@given(CHAINS, st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_passes_are_pure_and_keep_their_word(kinds: list[str], seed: int) -> None:
    graph = build(kinds, seed)
    before, wanted = dump(graph), run(graph)
    for action, targets in instances(graph):
        after, edits = action.apply(graph, targets, Context())
        assert dump(graph) == before, "the pass touched its input"
        onnx.checker.check_model(ir.serde.serialize_model(after.model))
        if Invariant.FUNCTION in action.keeps:
            np.testing.assert_allclose(run(after), wanted, atol=EXACT_TOLERANCE)
            again, more = action.apply(after, targets, Context())
            assert dump(again) == dump(after)
            assert more == []
        else:
            assert [edit.subject for edit in edits] == list(targets)
        assert broken_promise(graph, after, action.keeps) == ""


@given(CHAINS, st.integers(0, 5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_half_is_pure_and_leaves_nothing_to_do(kinds: list[str], seed: int, some: bool) -> None:
    """Of all ops that could be in half, or of every second one."""
    graph = build(kinds, seed)
    graph.simplify()
    before, wanted, action = dump(graph), run(graph), Half("fp16")
    can = sorted(graph.castable(action.dtype))
    staying = can[1::2] if some else []
    context = Context(halves={name: "it is to stay" if name in staying else "" for name in can})
    try:
        after, (first, *_) = action.apply(graph, (), context)
    except Refused as error:
        assert staying and "casts around them would cost more" in str(error)
        assert dump(graph) == before, "the pass touched its input"
        return
    assert dump(graph) == before, "the pass touched its input"
    onnx.checker.check_model(ir.serde.serialize_model(after.model), full_check=True)
    assert first.text.startswith(f"{len(can) - len(staying)} of {len(can)} ops") or some
    assert relative_error(wanted, run(after)) <= HALF_TOLERANCE
    assert broken_promise(graph, after, action.keeps) == ""
    left = after.castable(action.dtype) & set(can)
    assert left == set() if not some else left >= set(staying)
    with pytest.raises(Refused, match="no op of the model"):
        action.apply(graph, (), Context(halves=dict.fromkeys(can, "it is to stay")))
    assert dump(graph) == before


@pytest.mark.slow
@given(CHAINS, st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_rewriting_keeps_the_function_and_the_weights(kinds: list[str], seed: int) -> None:
    graph = build(kinds, seed)
    graph.simplify()
    before, wanted = dump(graph), run(graph)
    weights = [(weight.name, weight.shape, weight.dtype, len(weight.layers)) for weight in graph.weights()]
    for action, targets, context in rewritings(graph):
        sites = action.sites(graph, targets)
        open_sites = {site.subject for site in sites if not site.refused}
        assert dump(graph) == before, "looking for sites touched the graph"
        after, edits = action.apply(graph, targets, context)
        assert dump(graph) == before, "the pass touched its input"
        assert {edit.subject for edit in edits if not edit.refused} <= open_sites
        onnx.checker.check_model(ir.serde.serialize_model(after.model))
        assert relative_error(wanted, run(after)) <= TOLERANCE
        kept = {(weight.name, weight.shape, weight.dtype, len(weight.layers)) for weight in after.weights()}
        assert kept >= set(weights)
        left, edits = action.apply(graph, targets, dataclasses.replace(context, takes=lambda _: False))
        assert dump(left) == before, "the pass acted where it was told not to"
        assert all(edit.refused for edit in edits)


@pytest.mark.slow
@given(CHAINS, st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_restructuring_does_what_it_means(kinds: list[str], seed: int) -> None:
    graph = build(kinds, seed)
    graph.simplify()
    before, names = dump(graph), tuple(weight.name for weight in graph.weights())
    for definition in RESTRUCTURES:
        assert issubclass(definition, Restructure)
        given_ = {name: example(option) for name, option in options_of(definition).items() if option.required}
        action = definition(**given_)
        open_sites = {site.subject for site in action.sites(graph, names) if not site.refused}
        after, edits = action.apply(graph, names, Context())
        treated = {edit.subject for edit in edits if not edit.refused}
        assert treated <= open_sites
        assert dump(graph) == before, "the pass touched its input"
        onnx.checker.check_model(ir.serde.serialize_model(after.model))
        wanted = run(action.meant(graph, names, Context(takes=treated.__contains__)))
        assert relative_error(wanted, run(after)) <= TOLERANCE
        assert broken_promise(graph, after, action.keeps) == ""
        left, edits = action.apply(graph, names, Context(takes=lambda _: False))
        assert dump(left) == before, "the pass acted where it was told not to"
        assert all(edit.refused for edit in edits)


def test_what_breaks_a_promise_is_told() -> None:
    graph = build(["linear", "linear"], 0)
    graph.simplify()
    first = graph.weights()[0]
    smaller, gone = graph.copy(), graph.copy()
    action = Channels(keep=0.5)
    smaller, _ = action.apply(graph, [weight.name for weight in graph.weights()], Context())
    gone.remove(first.layers[0].output, "x")
    assert "another shape" in broken_promise(graph, smaller, EVERYTHING)
    assert "is gone" in broken_promise(graph, gone, EVERYTHING)
    assert broken_promise(graph, gone, {Invariant.SHAPES}) == ""


@pytest.mark.parametrize("definition", [*REWRITES, *RESTRUCTURES])
def test_a_rewriting_pass_lies_beside_the_module_of_its_property(definition: type[Rewrite]) -> None:
    folder = Path(str(sys.modules[definition.__module__].__file__)).parent
    assert (folder / f"{definition.property}.py").is_file()
    if issubclass(definition, Rewrite):  # one that changes the function says what it means
        assert (definition.keeps == EVERYTHING) != ("meant" in vars(definition))
        assert definition.keeps >= EVERYTHING - {Invariant.FUNCTION}
    else:
        assert definition.keeps != EVERYTHING
    assert inspect.getmodule(definition).__doc__
    assert len(keyword_of(definition)) > 1


@pytest.mark.parametrize("definition", [*passes().values(), *roundings().values(), *REWRITES, *RESTRUCTURES])
def test_a_pass_is_one_documented_frozen_dataclass(definition: type) -> None:
    keyword = keyword_of(definition)
    name = definition.__module__.rsplit(".", 1)[-1] if keyword == ON else keyword
    spelled = "".join(word.capitalize() for word in name.split("_"))
    assert definition.__name__ in (spelled, f"{getattr(definition, 'property', '').capitalize()}{spelled}")
    assert dataclasses.is_dataclass(definition)
    assert definition.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert definition.__doc__ is not None
    fields = {field.name for field in dataclasses.fields(definition)}
    documented = {line.split(":")[0].strip() for line in (definition.__doc__ or "").split("Args:")[-1].splitlines()}
    assert fields <= documented


@pytest.mark.parametrize("rounding", [Nearest(), Nearest("absmax"), Gptq(), Gptq(damping=0.1)])
@pytest.mark.parametrize("block", [TENSOR, CHANNEL, group(8), group(5), Block(4, 4), Block(3, 7)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_rounding_takes_every_encoding(rounding: Rounding, block: Block, symmetric: bool) -> None:
    graph = build(["linear"], 1)
    (weight,) = graph.weights()
    rng = np.random.default_rng(0)
    matrix, inputs = graph.matrix(weight), rng.standard_normal((64, WIDTH)).astype(np.float32)
    context = Context(grams={weight.name: inputs.T @ inputs})
    encoded = rounding.encode(weight, matrix, Blocked(IntGrid(4, symmetric), block), context)
    assert encoded.decode().shape == matrix.shape
    assert np.abs(encoded.decode() - matrix).max() < np.abs(matrix).max()


def test_gptq_beats_nearest_on_its_own_measure() -> None:
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((64, 64)).astype(np.float32)
    inputs = rng.standard_normal((512, 64)).astype(np.float32) @ mix
    matrix = rng.standard_normal((32, 64)).astype(np.float32)
    encoding = Blocked(IntGrid(3), group(16))
    errors = []
    for encoded in (encode(matrix, encoding), round_columns(matrix, encoding, inputs.T @ inputs, 0.01, "mse")):
        errors.append(float(np.square(inputs @ (encoded.decode() - matrix).T).sum()))
    assert errors[1] < 0.75 * errors[0]


def test_gptq_survives_dead_and_repeated_inputs() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((3, 16)).astype(np.float32)  # fewer rows than columns: singular
    inputs[:, :4] = 0
    inputs[:, 5] = inputs[:, 6]
    matrix = rng.standard_normal((8, 16)).astype(np.float32)
    encoded = round_columns(matrix, Blocked(IntGrid(4), CHANNEL), inputs.T @ inputs, 0.0, "mse")
    assert np.isfinite(encoded.decode()).all()
