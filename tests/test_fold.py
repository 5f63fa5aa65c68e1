"""Scales of channels: the function stays, what rounds badly rounds better, what cannot be scaled is said to."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.observe.statistics import layer_statistics
from qcc.ir.encoding.blocked import FLOAT_ENCODINGS, Blocked
from qcc.ir.encoding.blocks import TENSOR, Block, group
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Weight
from qcc.passes.contract.contract import Context, Edit
from qcc.passes.contract.moments import grams_of
from qcc.passes.fold.awq import LEAST_GAIN, Awq
from qcc.passes.fold.fold import Fold
from qcc.passes.fold.places import ADVICE, TIED
from qcc.passes.fold.search import GRID, NARROWEST, STRIDES, WIDEST, FoundScales, scales_of, search
from qcc.passes.fold.smoothquant import PEAK, STEPS, Smoothquant
from qcc.passes.fold.terms import Term, derivatives, rough_error
from tests import axes_models
from tests.axes_models import TOKEN_BLOCKS, chain
from tests.test_permute import close, graph_of, names, run

INT4, INT3 = Blocked(IntGrid(4), group(32)), Blocked(IntGrid(3), group(16))
ENCODINGS = [
    INT4,
    INT3,
    Blocked(IntGrid(4, False), group(8)),
    Blocked(IntGrid(8), TENSOR),
    Blocked(IntGrid(2), Block(4, 4)),
]
PASSES: list[Fold] = [Awq(), Awq(insert=True), Smoothquant(), Smoothquant(alpha=0.8, insert=True)]
WIDTH = 64
GATED = """
  n = LayerNormalization<axis=-1>(x, gain, bias) g = MatMul(n, gate) s = Sigmoid(g) u = MatMul(n, up)
  m = Mul(s, u) y = MatMul(m, down)
"""
BEHIND = "h = MatMul(x, up) a = Tanh(h) p = MatMul(a, one) q = MatMul(a, two) y = Add(p, q)"


def uneven(*shape: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.asarray(draw.standard_normal(shape) / np.sqrt(shape[0]), np.float32)


def gated() -> Graph:
    gain = np.exp(1.5 * np.random.default_rng(0).standard_normal(WIDTH)).astype(np.float32)
    shapes = {"gate": (WIDTH, 96), "up": (WIDTH, 96), "down": (96, 48), "bias": (WIDTH,)}
    weights = {name: uneven(*shape, seed=at) for at, (name, shape) in enumerate(shapes.items())}
    return graph_of(GATED, gain=gain, **weights)


def behind() -> Graph:
    up = uneven(WIDTH, 96, seed=1) * np.exp(1.5 * np.random.default_rng(0).standard_normal(96) - 3).astype(np.float32)
    return graph_of(BEHIND, up=up, one=uneven(96, 32, seed=2), two=uneven(96, 32, seed=3))


def inputs(seed: int = 3) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((200, WIDTH)).astype(np.float32)}


def context(graph: Graph, fed: Mapping[str, np.ndarray], encoding: Blocked = INT4) -> Context:
    found = layer_statistics(graph, Samples((dict(fed),), "drawn"), lambda *_: None, moments=names(graph)).moments
    return Context(grams=grams_of(found), encodings=dict.fromkeys(names(graph), encoding))


def output_error(graph: Graph, name: str, gram: np.ndarray) -> float:
    weight = next(one for one in graph.weights() if one.name == name)
    matrix = graph.matrix(weight)
    noise = encode(matrix, INT4).decode() - matrix
    return float(np.vdot(noise @ gram, noise) / np.vdot(matrix @ gram, matrix))


def matrix_of(graph: Graph, name: str) -> np.ndarray:
    return graph.matrix(next(one for one in graph.weights() if one.name == name))


@pytest.mark.slow
@given(
    st.lists(st.sampled_from(sorted(TOKEN_BLOCKS)), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.booleans(),
    st.sampled_from(PASSES),
    st.sampled_from(ENCODINGS),
)
@settings(max_examples=30, deadline=None)
def test_the_function_stays(kinds: list[str], seed: int, closed: bool, kind: Fold, encoding: Blocked) -> None:
    graph = chain(kinds, seed, closed=closed)
    fed = axes_models.feeds()
    wanted = axes_models.run(graph, fed)
    after, edits = kind.apply(graph, names(graph), context(graph, fed, encoding))
    got = axes_models.run(after, fed)
    assert (
        np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    )  # float32 noise, magnified by norms of drawn chains
    assert _shapes(after.weights()) == _shapes(graph.weights())
    subjects = [site.subject for site in kind.sites(graph, names(graph))]
    assert len(set(subjects)) == len(subjects)
    assert {edit.subject for edit in edits} <= set(subjects)
    assert {edit.subject for edit in edits if edit.refused} == {
        site.subject for site in kind.sites(graph, names(graph)) if site.refused
    }


def _shapes(weights: tuple[Weight, ...]) -> list[object]:
    return [(weight.name, weight.shape, weight.dtype, len(weight.layers)) for weight in weights]


def test_layers_of_a_norm_and_of_a_gate_lose_less() -> None:
    graph, fed = gated(), inputs()
    after, edits = Awq().apply(graph, names(graph), context(graph, fed))
    assert [(edit.subject, edit.refused, edit.layers) for edit in edits] == [
        ("inputs of gate", False, ("gate", "up")),
        ("outputs of up", False, ("down",)),
    ]
    assert close(run(after, inputs(5)), run(graph, inputs(5)))
    other = inputs(4)  # not the data that it was chosen by
    before, now = (context(one, other).grams for one in (graph, after))
    pairs = {name: (output_error(graph, name, before[name]), output_error(after, name, now[name])) for name in before}
    assert sum(pair[1] for name, pair in pairs.items() if name != "down") < 0.8 * sum(
        pair[0] for name, pair in pairs.items() if name != "down"
    )
    assert pairs["down"][1] < pairs["down"][0]


@pytest.mark.slow
def test_the_same_comes_out_again() -> None:
    graph, fed = gated(), inputs()
    (one, edits), (other, same) = (Awq().apply(graph, names(graph), context(graph, fed)) for _ in range(2))
    assert edits == same
    for name in names(graph):
        np.testing.assert_array_equal(matrix_of(one, name), matrix_of(other, name))


def test_nothing_is_scaled_where_no_one_is_encoded_or_asked() -> None:
    graph, fed = gated(), inputs()
    known = context(graph, fed)
    assert Awq().apply(graph, names(graph), Context(grams=known.grams))[1] == []
    assert Awq().apply(graph, names(graph), Context(encodings=known.encodings))[1] == []
    floats = dict.fromkeys(known.encodings, FLOAT_ENCODINGS["bf16"])
    assert Awq().apply(graph, names(graph), Context(grams=known.grams, encodings=floats))[1] == []
    assert Smoothquant().apply(graph, names(graph), Context(encodings=known.encodings))[1] == []
    some = Context(grams=known.grams, encodings=known.encodings, takes=lambda subject: subject == "outputs of up")
    assert [edit.subject for edit in Awq().apply(graph, names(graph), some)[1]] == ["outputs of up"]
    assert [site.subject for site in Awq().sites(graph, ("down",))] == ["outputs of up"]


def test_a_weight_that_stays_float_follows() -> None:
    graph, fed = gated(), inputs()
    known = context(graph, fed)
    encodings = {name: encoding for name, encoding in known.encodings.items() if name != "up"}
    after, _ = Awq().apply(graph, names(graph), Context(grams=known.grams, encodings=encodings))
    assert not close(matrix_of(after, "up"), matrix_of(graph, "up"))
    assert close(run(after, inputs(5)), run(graph, inputs(5)))


def test_behind_an_activation_reject() -> None:
    graph, fed = behind(), inputs()
    (site,) = (site for site in Awq().sites(graph, names(graph)) if "one" in site.layers)
    assert site.layers == ("one", "two")
    assert "does not pass scales on" in site.refused and site.refused.endswith(ADVICE)
    after, edits = Awq().apply(graph, names(graph), context(graph, fed))
    assert Edit(site.subject, site.refused, refused=True, layers=site.layers) in edits
    assert after.ops() == graph.ops()


@pytest.mark.parametrize("kind", [Awq(insert=True), Smoothquant(insert=True)])
def test_readers_of_one_value_share_a_product(kind: Fold) -> None:
    graph, fed = behind(), inputs()
    after, edits = kind.apply(graph, ("one", "two"), context(graph, fed))
    assert [(edit.layers, edit.refused) for edit in edits] == [(("one", "two"), False)]
    assert "inserted" in edits[0].text
    assert len(after.ops()) == len(graph.ops()) + 1
    assert close(run(after, inputs(5)), run(graph, inputs(5)))


def test_a_weight_with_two_inputs_reject() -> None:
    graph = graph_of("h = MatMul(x, w) a = Tanh(h) y = MatMul(a, w)", w=uneven(WIDTH, WIDTH, seed=0))
    (site,) = Awq(insert=True).sites(graph, names(graph))
    assert TIED in site.refused
    after, (edit,) = Awq(insert=True).apply(graph, names(graph), context(graph, inputs()))
    assert edit.refused
    assert after.ops() == graph.ops()


def test_smoothquant_is_its_formula_and_rests() -> None:
    graph, fed = behind(), inputs()
    kind = Smoothquant(alpha=0.7, insert=True)
    known = context(graph, fed)
    after, _ = kind.apply(graph, ("one", "two"), known)
    weights = [matrix_of(graph, name) for name in ("one", "two")]
    largest = np.abs(np.concatenate(weights)).max(0)
    t = (PEAK * np.sqrt(np.diag(known.grams["one"]))) ** 0.7 / largest**0.3
    half = 2 ** (0.5 / STEPS) - 1
    np.testing.assert_allclose(matrix_of(after, "one"), weights[0] * t, rtol=1.01 * half)
    again = kind.apply(graph, ("one", "two"), context(graph, {"x": fed["x"] * np.float32(1 + 1e-6)}))
    np.testing.assert_array_equal(matrix_of(again[0], "one"), matrix_of(after, "one"))
    assert kind.apply(after, ("one", "two"), context(after, fed))[1] == []


def test_scales_do_not_take_channels_without_inputs_or_weights() -> None:
    graph, fed = gated(), inputs()
    known = context(graph, fed)
    dead = dict(known.grams)
    for name in ("gate", "up"):
        dead[name] = dead[name].copy()
        dead[name][7], dead[name][:, 7] = 0, 0
    after, _ = Smoothquant().apply(graph, ("gate", "up"), Context(grams=dead))
    np.testing.assert_array_equal(matrix_of(after, "gate")[:, 7], matrix_of(graph, "gate")[:, 7])
    assert Awq().apply(graph, ("gate", "up"), Context(grams=dead, encodings=known.encodings))[1]


def test_a_second_group_sees_the_first() -> None:
    """The layer that reads and is scaled on both sides is judged by the inputs that it now has."""
    graph, fed = gated(), inputs()
    coarse = Blocked(IntGrid(4), TENSOR)
    known = context(graph, fed)
    found = Context(grams=known.grams, encodings=dict.fromkeys(names(graph), coarse))
    after, edits = Awq().apply(graph, names(graph), found)
    assert close(run(after, inputs(5)), run(graph, inputs(5)))
    assert all(not edit.refused for edit in edits)


def term(rows: int, columns: int, encoding: Blocked, seed: int = 0, **options: object) -> Term:
    draw = np.random.default_rng(seed)
    values = draw.standard_normal((300, columns)) * np.exp(draw.standard_normal(columns))
    gram = (values.T @ values / 300).astype(np.float32)
    matrix = draw.standard_normal((rows, columns)).astype(np.float32)
    return Term(matrix, encoding, gram, np.arange(columns), **options)  # type: ignore[arg-type]  # of a test


@pytest.mark.slow
@given(st.integers(1, 200), st.integers(2, 70), st.sampled_from(ENCODINGS), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_search_never_loses_and_ends(rows: int, columns: int, encoding: Blocked, seed: int) -> None:
    found: FoundScales = search([term(rows, columns, encoding, seed)], columns)
    assert found.after <= found.before
    assert found.t.min() >= NARROWEST / 2 and found.t.max() <= WIDEST * 2
    assert found.tries <= 3 * len(GRID) + 1 + len(STRIDES) * 6 + 5


def test_a_search_gains_on_rows_it_did_not_see() -> None:
    whole = term(1024, 96, INT4)
    found = search([Term(whole.matrix[:400], INT4, whole.gram, whole.channels)], 96)
    rest = Term(whole.matrix[400:], INT4, whole.gram, whole.channels)
    assert rest.error(found.t) < 0.9 * rest.error(np.ones(96))


def test_even_channels_keep_their_scales() -> None:
    matrix = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    found = search([Term(matrix, INT4, np.eye(64, dtype=np.float32), np.arange(64))], 64)
    assert found.after > (1 - LEAST_GAIN) * found.before or np.ptp(np.log(found.t)) < 1


def test_a_writer_that_shares_steps_among_rows_has_a_say() -> None:
    """Scales that would ruin a weight stored with one step for all its rows are not taken."""
    reader, writer = term(64, 48, INT4), term(48, 32, Blocked(IntGrid(4), TENSOR), seed=1)
    tied = Term(writer.matrix, writer.encoding, writer.gram, np.arange(48), rowwise=True, power=-1)
    alone, together = search([reader], 48), search([reader, tied], 48)
    assert together.after <= together.before
    assert tied.error(together.t) < tied.error(alone.t)


@given(st.sampled_from(ENCODINGS[:3]), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_estimate_balances_where_nothing_is_to_be_won(encoding: Blocked, seed: int) -> None:
    """What larger factors save and cost is the same in sum: factors common to all change nothing."""
    own, shared = derivatives(term(20, 32, encoding, seed), np.ones(32))
    assert own.sum() == pytest.approx(shared.sum(), rel=1e-3)
    assert (own >= 0).all() and (shared >= 0).all()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.text)
def test_the_rough_error_is_about_the_true_one(encoding: Blocked) -> None:
    one = term(64, 64, encoding)
    diagonal = Term(one.matrix, encoding, np.diag(np.diag(one.gram)) if one.gram is not None else None, one.channels)
    true = diagonal.error(np.ones(64)) * diagonal.energy(diagonal.matrix)
    assert true * 0.8 < rough_error(one, np.ones(64)) < true * 2  # it tries fewer clipping ranges


def test_scales_have_bounds_and_a_mean() -> None:
    t = scales_of(np.array([0.0, 1.0, 2.0, -3.0]))
    assert np.prod(t) == pytest.approx(1)
    assert scales_of(np.array([0.0, 100.0])).max() == pytest.approx(WIDEST)
