"""Tables whose rows are merged: which become one, by what, what files do with it, and what policies may say of it."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import qcc
from qcc.compiler.plan.catalog import schema
from qcc.compiler.report.lock import read_plan
from qcc.compiler.report.result import Result
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.encoding.blocked import FLOAT32, Blocked
from qcc.ir.encoding.fit import encode
from qcc.ir.encoding.formats.composed.frequent import OftenAsked
from qcc.ir.encoding.formats.composed.graph import Together
from qcc.ir.encoding.formats.composed.kmeans import Nearby
from qcc.ir.encoding.formats.composed.merged import Merged
from qcc.ir.encoding.formats.composed.stack import Stack
from qcc.ir.encoding.grid import IntGrid
from qcc.ir.encoding.tables import clusters, graph
from qcc.ir.encoding.tables.clusters import kmeans, means
from qcc.ir.encoding.tables.lookups import CALIBRATION, Interactions, Lookups
from qcc.ir.errors import ModelError, Refused
from tests import onnx_models

random = onnx_models.random
ROWS, OTHERS, SIZE = 60, 40, 16
INT4 = Blocked(IntGrid(4))
MODEL = """g (int64[N] user, int64[M] item) => (float[N,M] score) {
    flat = Identity(user)
    a = Gather(users, flat)
    b = Gather(items, item)
    c = Transpose(b)
    score = MatMul(a, c)
}"""
TIED = """g (int64[N] ids) => (float[N,V] y) {
    e = Gather(table, ids)
    t = Transpose <perm=[1,0]> (table)
    y = MatMul(e, t)
}"""


def pairs(groups: int = 4, many: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two tables that are looked up together where their numbers leave the same remainder."""
    draw = np.random.default_rng(0)
    group = draw.integers(0, groups, many)
    left = draw.integers(0, ROWS // groups, many) * groups + group
    return left, draw.integers(0, OTHERS // groups, many) * groups + group


def lookups(side: int = 0, times: np.ndarray | None = None) -> dict[str, Lookups]:
    columns = pairs()
    found = Interactions("pairs.npz", ("user", "item"), columns, times)
    return {"pairs.npz": Lookups(np.bincount(columns[side], minlength=(ROWS, OTHERS)[side]), found, side)}


def stored(encoding: Encoding, known: dict[str, Lookups] | None = None) -> np.ndarray:
    return encode(random(ROWS, SIZE), encoding, lookups=known or {}).decode()


@pytest.mark.parametrize("count", [1, 2, 17, 59, 60])
@pytest.mark.parametrize("often", [None, np.arange(ROWS)])
@pytest.mark.parametrize("many", [4096, 16])
def test_as_many_clusters_as_are_asked_for(
    count: int, often: np.ndarray | None, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is empty, also where rows are parted first, and where many rows are alike."""
    monkeypatch.setattr(clusters, "MANY", many)
    monkeypatch.setattr(clusters, "PART", many // 2)
    for points in (random(ROWS, SIZE), np.repeat(random(3, SIZE), ROWS // 3, 0), np.zeros((ROWS, SIZE), np.float32)):
        assert sorted(set(kmeans(points, count, often))) == list(range(count))


def test_rows_that_nothing_parts_are_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in tables of which most rows were never trained; others have the rest of the clusters."""
    monkeypatch.setattr(clusters, "MANY", 16)
    monkeypatch.setattr(clusters, "PART", 8)
    points = np.concatenate([np.zeros((400, SIZE), np.float32), random(ROWS, SIZE)])
    points[:400:2] *= -1
    for often in (None, np.arange(len(points))):
        found = kmeans(points, 40, often)
        assert len(set(found[:400])) == 1 and len(set(found[400:]) - {found[0]}) == 39
        assert sorted(set(kmeans(points, 200, often))) == list(range(200))


def test_clusters_that_are_there_are_found() -> None:
    centres, member = random(5, SIZE) * 10, np.arange(ROWS) % 5
    found = kmeans(centres[member] + random(ROWS, SIZE, seed=1), 5)
    assert len(set(zip(found, member, strict=True))) == 5


def test_a_row_by_itself_stays_to_the_bit_and_others_are_means() -> None:
    matrix = random(4, SIZE)
    found = means(matrix, np.array([0, 1, 1, 3]), 4, np.array([0.0, 1.0, 3.0, 1.0]))
    np.testing.assert_array_equal(found[[0, 3]], matrix[[0, 3]])
    np.testing.assert_allclose(found[1], matrix[1] / 4 + matrix[2] * 3 / 4, atol=1e-6)  # a rounding or two
    assert not found[2].any()


def test_rows_that_are_looked_up_often_stay() -> None:
    known = {CALIBRATION: Lookups(np.array([5, 0, 9, 1, 0, 7]))}
    matrix = random(6, SIZE)
    kept = encode(matrix, Merged(OftenAsked(0.5)), lookups=known).decode()
    np.testing.assert_array_equal(kept[[2, 5]], matrix[[2, 5]])
    np.testing.assert_allclose(kept[[0, 1, 3, 4]], np.broadcast_to(matrix[[0, 1, 3, 4]].mean(0), (4, SIZE)), atol=1e-6)
    least = encode(matrix, Merged(OftenAsked(least=5)), lookups=known)
    assert least.encoding == Merged(OftenAsked(least=5), settled=4)
    np.testing.assert_array_equal(least.decode()[[0, 2, 5]], matrix[[0, 2, 5]])
    whole = encode(matrix, Merged(OftenAsked(1.0)), lookups=known)
    np.testing.assert_array_equal(whole.decode(), matrix)


@pytest.mark.parametrize(("share", "told"), [(0.5, (4, 4)), (0.17, (6, 5))])
def test_of_rows_that_are_one_now_no_more_were_never_looked_up(share: float, told: tuple[int, int]) -> None:
    known = {CALIBRATION: Lookups(np.array([0, 0, 9, 0, 0, 0]))}
    wanted = f"{told[0]} of 6 rows are one now, {told[1]} of which calibration data never looks up"
    assert Merged(OftenAsked(share)).warning((6, SIZE), known) == wanted


def test_rows_expire() -> None:
    """What was last looked up too long before the last of all is no row of its own any more."""
    found = Interactions("p", ("a", "b"), (np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1])), np.array([1.0, 9, 5, 10]))
    known = {"p": Lookups(np.array([2, 1, 1, 0]), found)}
    matrix = random(4, SIZE)
    kept = encode(matrix, Merged(OftenAsked(least=1, seen="p", within=2)), lookups=known)
    assert kept.parts["map"].tolist() == [0, 2, 1, 2]
    both = encode(matrix, Merged(OftenAsked(0.5, seen="p", within=2)), lookups=known)
    assert both.parts["map"].tolist() == [0, 1, 1, 1]


def test_rows_of_a_community_become_one() -> None:
    matrix, known = random(ROWS + 2, SIZE), lookups()
    known = {name: Lookups(np.append(one.counts, [0, 0]), one.of) for name, one in known.items()}
    found = encode(matrix, Merged(Together("pairs.npz")), lookups=known)
    label = found.parts["map"]
    assert len(set(zip(label[:ROWS], np.arange(ROWS) % 4, strict=True))) == 4 == len(set(label[:ROWS]))
    assert label[-1] == label[-2] and label[-1] not in label[:ROWS]  # never looked up
    other = encode(random(OTHERS, SIZE), Merged(Together("pairs.npz")), lookups=lookups(1)).parts["map"]
    assert len(set(zip(other, np.arange(OTHERS) % 4, strict=True))) == 4


def test_what_rows_are_looked_up_with_tells_them_apart() -> None:
    found = encode(random(ROWS, SIZE), Merged(Nearby(12 / ROWS, "pairs.npz")), lookups=lookups()).parts["map"]
    assert len(set(zip(found, np.arange(ROWS) % 4, strict=True))) == 12


@pytest.mark.parametrize("how", [Nearby(4 / ROWS, "pairs.npz", 0.0), Together("pairs.npz", trained=0.0)])
def test_rows_that_were_not_trained_count_nothing(how: Nearby | Together) -> None:
    """All that count are those of the first half, whatever the others hold."""
    times = (pairs()[0] >= ROWS // 2).astype(float)
    matrix, spoilt = random(ROWS, SIZE), random(ROWS, SIZE)
    spoilt[ROWS // 2 :] = 1e3
    found, other = (encode(one, Merged(how), lookups=lookups(times=times)).decode() for one in (matrix, spoilt))
    np.testing.assert_allclose(found, other, atol=1e-5)


def test_rows_that_are_looked_up_most_share_with_no_other() -> None:
    matrix, counts = random(ROWS, SIZE), lookups()["pairs.npz"].counts
    found = encode(matrix, Merged(Nearby(0.4, seen="pairs.npz")), lookups=lookups())
    alone = np.argsort(-counts, kind="stable")[:12]
    np.testing.assert_array_equal(found.decode()[alone], matrix[alone])
    assert len(set(found.parts["map"])) == 24


def test_what_is_left_of_rows_may_be_kept() -> None:
    merged = Merged(Nearby(0.25), INT4)
    errors = [float(((stored(one) - random(ROWS, SIZE)) ** 2).sum()) for one in (merged, Stack((merged, INT4)))]
    assert errors[1] < 0.05 * errors[0]


@pytest.mark.parametrize(
    "encoding", [Merged(Together("pairs.npz")), Merged(OftenAsked(0.5)), Merged(Nearby(0.5, seen="pairs.npz"))]
)
def test_without_lookups_nothing_is_merged(encoding: Encoding) -> None:
    with pytest.raises(Refused, match="does not tell how the rows are looked up"):
        stored(encoding)


def test_the_map_counts() -> None:
    """16 bits a row, for as few rows as 2."""
    assert Merged(Nearby(0.5)).size_bits((ROWS, SIZE)) == 16 * ROWS + ROWS // 2 * SIZE * 32
    assert Merged(Nearby(0.5), INT4).size_bits((ROWS, SIZE)) == 16 * ROWS + ROWS // 2 * (SIZE * 4 + 16)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two tables, and a file of interactions and one of calibration beside them."""
    tables = {"users": random(ROWS, SIZE), "items": random(OTHERS, SIZE, seed=1)}
    onnx.save(onnx_models.parse(MODEL, tables, opset=18), tmp_path / "model.onnx")
    user, item = pairs()
    np.savez(tmp_path / "pairs.npz", user=user, item=item, time=np.arange(len(user)))
    np.savez(tmp_path / "untimed.npz", user=user, item=item)
    np.savez(tmp_path / "data.npz", user=user % 7, item=item % 5)
    return tmp_path / "model.onnx"


def compiled(model: Path, text: str, kind: str = "embedding") -> Result:
    """Under a policy that lies beside the model, like all that it names."""
    path = model.with_name("tables.qpolicy")
    path.write_text(f"qpolicy 1\nrule {kind} {{ {text} }}\n", encoding="utf-8")
    return qcc.compile(model, path, output=model.with_name("out.onnx"), data=model.with_name("data.npz"))


def scores(path: Path) -> np.ndarray:
    (found,) = onnx_models.run(path, {"user": np.arange(ROWS), "item": np.arange(OTHERS)}).values()
    return found


def test_a_lookup_stays_a_lookup(model: Path) -> None:
    """Nothing reads what is stored but ops that gather the rows that are asked for."""
    found = compiled(model, "rows = kmeans(25%); weights = int4 channel")
    assert found.written and {row.form for row in found.layers} == {"rows"}
    assert all("rows are left, the map takes" in row.reason for row in found.layers)
    nodes = onnx.load(found.output).graph.node
    readers = {node.op_type for node in nodes for name in node.input if name.startswith(("users.", "items."))}
    assert readers == {"Gather"}
    told = {one.key: one.value for one in onnx.load(found.output).metadata_props}["qcc.rows"]
    assert told.startswith("users: 15 of 60 rows are left, the map takes 120 bytes; items: 10 of 40 rows")


def test_users_of_kept_rows_see_no_difference(model: Path) -> None:
    """To the bit, with the rows that are kept and one more for all others."""
    found = compiled(model, "rows = frequent(least = 1)")
    assert [one.code for one in found.warnings] == ["Q351", "Q351"]
    told = "`users`: 53 of 60 rows are one now, 53 of which calibration data never looks up"
    assert found.warnings[0].message == told
    kept = slice(0, 7), slice(0, 5)
    np.testing.assert_array_equal(scores(found.output)[kept], scores(model)[kept])
    assert np.ptp(scores(found.output)[7:], 0).max() == 0


def test_rows_that_calibration_looks_up_most_share_with_none(model: Path) -> None:
    """To the bit; where nobody gives any, no row is before others."""
    with np.load(model.with_name("data.npz")) as data:
        often = np.argsort(-np.bincount(data["user"].reshape(-1), minlength=ROWS), kind="stable")[:5]
    found = compiled(model, "rows = kmeans(25%)")
    users = [merged_rows(path) for path in (model, found.output)]
    np.testing.assert_array_equal(users[1][often], users[0][often])
    path = model.with_name("tables.qpolicy")
    bare = qcc.compile(model, path, output=model.with_name("bare.onnx"))
    assert len(np.unique(merged_rows(bare.output), axis=0)) == 15
    assert not np.array_equal(merged_rows(bare.output)[often], users[0][often])


def merged_rows(path: Path) -> np.ndarray:
    """What a model makes of each user, before it is multiplied with items."""
    held = onnx.load(path)
    held.graph.output[0].name = "a"
    held.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    other = path.with_name("rows.onnx")
    onnx.save(held, other)
    (found,) = onnx_models.run(other, {"user": np.arange(ROWS), "item": np.arange(OTHERS)}).values()
    return found


@pytest.mark.slow
def test_the_lock_knows_the_interactions_and_its_plan_runs(model: Path) -> None:
    found = compiled(model, 'rows = graph("pairs.npz", resolution = 2)')
    lock = json.loads(found.lock.read_text(encoding="utf-8"))
    assert list(lock["calibration"]["interactions"]) == ["pairs.npz"]
    data, output = model.with_name("data.npz"), model.with_name("again.onnx")
    again = qcc.compile(model, plan=read_plan(found.lock), output=output, data=data)
    np.testing.assert_array_equal(scores(again.output), scores(found.output))
    np.savez(model.with_name("pairs.npz"), user=[0, 1], item=[0, 1], time=[0, 1])
    changed = qcc.compile(model, plan=read_plan(found.lock), output=output, data=data)
    assert "the interactions `pairs.npz`" in next(one.message for one in changed.warnings if one.code == "Q452")


@pytest.mark.slow
def test_the_allocator_chooses_among_rows(model: Path) -> None:
    text = "rows = all | kmeans({10%,50%}); weights = int{4,8} channel"
    path = model.with_name("tables.qpolicy")
    path.write_text(f"qpolicy 1\nrule any {{ {text} }}\nbudget {{ bits <= 3.5 }}\n", encoding="utf-8")
    found = qcc.compile(model, path, output=model.with_name("out.onnx"), data=model.with_name("data.npz"))
    assert found.allocation is not None and found.allocation.candidates == 12
    assert any("kmeans" in row.format for row in found.layers)


def test_rows_are_those_of_embeddings_alone(tmp_path: Path) -> None:
    body = "g (int64[N] i) => (float[N,32] y) { e = Gather(table, i) y = MatMul(e, w) }"
    onnx.save(onnx_models.parse(body, {"table": random(ROWS, 16), "w": random(16, 32)}), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", i=np.arange(ROWS))
    found = compiled(tmp_path / "model.onnx", "rows = kmeans(50%); weights = int8 channel", "any")
    assert [row.format.startswith("kmeans") for row in found.layers] == [True, False]


@pytest.mark.slow
def test_a_tied_table_is_refused_or_expanded(tmp_path: Path) -> None:
    onnx.save(onnx_models.parse(TIED, {"table": random(ROWS, 64)}), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", ids=np.arange(20))
    with pytest.raises(QccError) as caught:
        compiled(tmp_path / "model.onnx", "rows = frequent(least = 1)")
    assert [one.code for one in caught.value.diagnostics] == ["Q348"]
    assert "`table` is read by linear layers" in caught.value.diagnostics[0].message
    found = compiled(tmp_path / "model.onnx", "rows = frequent(least = 1, tied = expand)")
    ids = {"ids": np.arange(ROWS)}
    (before,), (after,) = (onnx_models.run(path, ids).values() for path in (tmp_path / "model.onnx", found.output))
    np.testing.assert_allclose(after[:20, :20], before[:20, :20], atol=1e-4)  # products in another order
    assert np.ptp(after[:, 20:], 1).max() < 1e-5 and found.output_bytes < 0.6 * found.input_bytes
    kept = compiled(tmp_path / "model.onnx", "rows = frequent(least = 1, tied = expand); rounding = gptq")
    assert kept.written


def _pairs_of_others(folder: Path) -> None:
    np.savez(folder / "pairs.npz", person=[0, 1], film=[0, 1])


def _rows_beyond(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=[0, ROWS], item=[0, 1])


def _three_columns(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=[0, 1], item=[0, 1], shop=[0, 1])


def _fractions(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=[0.5, 1], item=[0, 1])


def _unequal(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=[0, 1, 2], item=[0, 1])


def _nothing(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=np.zeros(0, int), item=np.zeros(0, int))


def _endless(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=[0, 1], item=[0, 1], time=[0, np.nan])


def _below(folder: Path) -> None:
    np.savez(folder / "pairs.npz", user=[0, -1], item=[0, 1])


def _text(folder: Path) -> None:
    (folder / "pairs.npz").write_text("user,item\n0,1\n", encoding="utf-8")


def _gone(folder: Path) -> None:
    (folder / "pairs.npz").unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        (_pairs_of_others, "Q347", "has columns `person` and `film`, and none for `users`"),
        (_rows_beyond, "Q347", "names row 60 of `users`, which has 60"),
        (_below, "Q347", "names row -1 of `users`"),
        (_three_columns, "Q346", "not two arrays beside `time`"),
        (_fractions, "Q346", "`user` is float64, no whole numbers"),
        (_unequal, "Q346", "no columns of one length"),
        (_nothing, "Q346", "it holds no pairs"),
        (_endless, "Q346", "`time` holds what is no finite number"),
        (_text, "Q346", "it is not an .npz file"),
        (_gone, "Q346", "there is no such file"),
    ],
)
def test_interactions_that_tell_nothing_are_told(
    spoil: Callable[[Path], None], code: str, told: str, model: Path
) -> None:
    spoil(model.parent)
    with pytest.raises(QccError) as caught:
        compiled(model, 'rows = kmeans(25%, graph = "pairs.npz")')
    assert [one.code for one in caught.value.diagnostics] == [code]
    assert told in caught.value.diagnostics[0].message
    assert not model.with_name("out.onnx").exists()


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ('rows = frequent(least = 1, seen = "untimed.npz", within = 5)', "Q349", "does not tell when"),
        ('rows = graph("untimed.npz", trained = 5)', "Q349", "does not tell when"),
        ('rows = kmeans(25%, graph = "untimed.npz", trained = 5)', "Q349", "does not tell when"),
    ],
)
def test_times_that_are_needed_are_asked_for(text: str, code: str, told: str, model: Path) -> None:
    with pytest.raises(QccError) as caught:
        compiled(model, text)
    assert [one.code for one in caught.value.diagnostics] == [code]
    assert told in caught.value.diagnostics[0].message


def test_generated_data_tells_nothing_of_lookups(model: Path) -> None:
    with pytest.raises(QccError) as caught:
        qcc.compile(model, "qpolicy 1\nrule embedding { rows = frequent(10%) }\n", output=model.with_name("out.onnx"))
    assert [one.code for one in caught.value.diagnostics] == ["Q345"]


def test_a_large_graph_takes_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST_EDGES", 10)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="take scikit-network") as caught:
        Merged(Together("pairs.npz")).check_lookups(lookups())
    assert caught.value.code == "Q350"


def test_the_other_library_finds_the_same_communities(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sknetwork")
    monkeypatch.setattr(graph, "MOST_EDGES", 10)
    found = encode(random(ROWS, SIZE), Merged(Together("pairs.npz")), lookups=lookups()).parts["map"]
    assert len(set(zip(found, np.arange(ROWS) % 4, strict=True))) == 4


class Tables(torch.nn.Module):
    """Two tables, as PyTorch has them."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        arrays = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(model).graph.initializer}
        self.users = torch.nn.Embedding(ROWS, SIZE, _weight=torch.tensor(arrays["users"]))
        self.items = torch.nn.Embedding(OTHERS, SIZE, _weight=torch.tensor(arrays["items"]))

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Scores."""
        found: torch.Tensor = self.users(user) @ self.items(item).T
        return found


@pytest.mark.slow
def test_programs_of_torch_become_the_same(model: Path) -> None:
    ids = torch.arange(ROWS), torch.arange(OTHERS)
    policy = model.with_name("tables.qpolicy")
    text = 'rows = graph("pairs.npz"); weights = int8 channel'
    policy.write_text(f"qpolicy 1\nrule embedding {{ {text} }}\n", encoding="utf-8")
    made = qcc.compile(Tables(model), policy, example_inputs=ids)
    assert isinstance(made.model, torch.nn.Module)
    found = made.model(*ids).numpy()
    np.testing.assert_allclose(found, scores(compiled(model, text).output), atol=1e-4)  # sums in another order


def test_rows_stay_as_they_are_by_default() -> None:
    assert Merged(Nearby(0.5)).within == (FLOAT32,)
    assert set(schema().properties["rows"].formats or ()) == {"kmeans", "graph", "frequent", "all"}
