"""Tables of a recommender whose rows are merged: Recall@20 on MovieLens-100k, by what is kept and in how many bytes.

``python -m benchmarks.tables ml-100k.inter`` factors the ratings by implicit ALS (32 numbers a row, 12 rounds, the last
fifth of each user's ratings held out), writes the model as an ONNX file of two tables, compiles it under policies and
measures what the files recommend. The ratings are in the wheel of ``recbole`` on PyPI; their licence keeps them out of
repositories. ``--untrained`` trains on the ratings of the first seven tenths of the time alone, so that rows of users
and films that came later have never been trained; all ratings but those held out are interactions. ``--graph`` clusters
a power-law graph of a million pairs and 100,000 rows, which takes scikit-network, and tells the time and the memory.
"""

import argparse
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from onnx import numpy_helper

import qcc
from qcc.codegen.target.machine import cpu_name
from qcc.compiler.report.result import LayerRow
from qcc.ir.encoding.tables.clusters import means
from qcc.ir.encoding.tables.graph import communities, features
from qcc.ir.encoding.tables.lookups import Interactions, Lookups

SIZE, ROUNDS, RIDGE, TRUST, TOP = 32, 12, 2.0, 10.0, 20
EARLY = 0.7  # of the time, after which rows are untrained
MODEL = """<ir_version: 8, opset_import: ["": 18]>
g (int64[N] user, int64[M] item) => (float[N,M] score) {
    a = Gather(users, user)
    b = Gather(items, item)
    c = Transpose(b)
    score = MatMul(a, c)
}"""
FILE = "interactions.npz"
POLICIES = {
    "int4 rows": "weights = int4 channel",
    "graph, resolution 10": f'rows = graph("{FILE}", resolution = 10)',
    "k-means, 40 %": "rows = kmeans(40%)",
    "k-means, 40 %, 128 pairs to calibrate on": "rows = kmeans(40%)",
    "k-means, 40 %, all pairs to calibrate on": "rows = kmeans(40%)",
    "k-means, the most seen apart, 40 %": f'rows = kmeans(40%, seen = "{FILE}")',
    "k-means, 38 %, int4": "rows = kmeans(38%); weights = int4 channel",
    "the most seen apart, 38 %, int4": f'rows = kmeans(38%, seen = "{FILE}"); weights = int4 channel',
    "the most seen apart, 25 %, int4": f'rows = kmeans(25%, seen = "{FILE}"); weights = int4 channel',
    "k-means of the graph's features, 39 %": f'rows = kmeans(39%, graph = "{FILE}")',
    "graph, resolution 10, what is left in int2": f'rows = graph("{FILE}", resolution = 10, residual = int2 channel)',
    "frequent, 39 %": f'rows = frequent(39%, seen = "{FILE}")',
}


@dataclass(frozen=True)
class Ratings:
    """Who saw what when, and which of it is held out."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    held: np.ndarray

    @classmethod
    def read(cls, path: Path) -> "Ratings":
        """Of a file of RecBole's, the last fifth of each user's held out."""
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        users, items = (np.array([int(line[at]) for line in lines]) - 1 for at in (0, 1))
        times = np.array([float(line[3]) for line in lines])
        held = np.zeros(len(lines), bool)
        for user in range(users.max() + 1):
            own = np.flatnonzero(users == user)
            own = own[np.argsort(times[own])]
            held[own[int(len(own) * 0.8) :]] = True
        return cls(users, items, times, held)

    def matrix(self, chosen: np.ndarray) -> np.ndarray:
        """Which user saw which item, of some."""
        found = np.zeros((self.users.max() + 1, self.items.max() + 1), bool)
        found[self.users[chosen], self.items[chosen]] = True
        return found


def factors(seen: np.ndarray, early: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tables of users and items by implicit alternating least squares; where it ends early rows may stay as drawn."""
    random = np.random.default_rng(0)
    users, items = (random.standard_normal((size, SIZE)) * 0.1 for size in seen.shape)
    for _ in range(ROUNDS):
        for own, other, matrix in ((users, items, seen), (items, users, seen.T)):
            gram = other.T @ other + RIDGE * np.eye(SIZE)
            for row in np.flatnonzero(matrix.any(1)) if early else range(len(matrix)):
                met = other[matrix[row]]
                own[row] = np.linalg.solve(gram + TRUST * met.T @ met, (1 + TRUST) * met.sum(0))
    return users.astype(np.float32), items.astype(np.float32)


def recall(score: np.ndarray, known: np.ndarray, held: np.ndarray) -> float:
    """Of what each user saw later, how much is among the twenty that score best beside what was known, in percent."""
    score = np.where(known, -np.inf, score)
    top = np.argpartition(-score, TOP, 1)[:, :TOP]
    hits, count = np.take_along_axis(held, top, 1).sum(1), held.sum(1)
    return float(100 * (hits[count > 0] / np.minimum(count[count > 0], TOP)).mean())


def save(path: Path, users: np.ndarray, items: np.ndarray) -> None:
    """The model of two tables as a file."""
    model = onnx.parser.parse_model(MODEL)
    tables = {"users": users, "items": items}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tables.items())
    onnx.save(model, path)


def scores(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """What a model's file says of all users and items."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"user": np.arange(shape[0]), "item": np.arange(shape[1])})
    return np.asarray(found)


def hashed(table: np.ndarray, count: int, trained: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A table whose rows are the means of so many random sets of them, of the trained ones where there are some."""
    labels = random.integers(0, count, len(table))
    return means(table, labels, count, trained.astype(float))[labels]


def measure(ratings: Ratings, early: bool) -> None:
    """Every policy's line."""
    last = float(np.quantile(ratings.times, EARLY))
    known, held = ratings.matrix(~ratings.held), ratings.matrix(ratings.held)
    trained = ratings.matrix(~ratings.held & (ratings.times <= last)) if early else known
    users, items = factors(trained, early)
    whole = (users.nbytes + items.nbytes) / 100
    print(f"trained rows: {trained.any(1).sum()} of {len(users)} users, {trained.any(0).sum()} of {len(items)} items")
    line("float", recall(users @ items.T, known, held), 100.0, 100.0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "model.onnx", users, items)
        own = ~ratings.held
        np.savez(folder / FILE, user=ratings.users[own], item=ratings.items[own], time=ratings.times[own])
        np.savez(folder / "pairs.npz", user=ratings.users[own], item=ratings.items[own])
        kept: dict[str, float] = {}
        for title, text in (UNTRAINED if early else POLICIES).items():
            text = text.replace("LAST", f"{last:.0f}")
            policy = f"qpolicy 1\n{_calibrate(title)}rule embedding {{ {text} }}\n"
            (folder / "tables.qpolicy").write_text(policy, encoding="utf-8")
            made = qcc.compile(folder / "model.onnx", folder / "tables.qpolicy", output=folder / "out.onnx")
            kept = kept_rows(made.layers) or kept
            size = sum(row.bits * row.shape[0] * row.shape[1] / 8 for row in made.layers)
            found = recall(scores(folder / "out.onnx", known.shape), known, held)
            share = 100 * sum(kept.values()) / (len(users) + len(items)) if kept_rows(made.layers) else 100.0
            line(title, found, share, size / whole)
            if "graph" in title and "left" not in title:
                random_line(kept, (users, items), trained, known, held)


def _calibrate(title: str) -> str:
    """The statement that a policy's title asks for."""
    if "to calibrate on" not in title:
        return ""
    return f'calibrate "pairs.npz" {{ samples = {128 if "128" in title else 100_000}, seed = 0 }}\n'


def kept_rows(rows: tuple[LayerRow, ...]) -> dict[str, float]:
    """How many rows are left of each table whose rows were merged, as the report tells."""
    return {row.name: float(row.reason.rpartition("; ")[2].partition(" of ")[0].replace(",", ""))
            for row in rows if "rows are left" in row.reason}  # fmt: skip


def random_line(
    kept: Mapping[str, float],
    tables: tuple[np.ndarray, np.ndarray],
    trained: np.ndarray,
    known: np.ndarray,
    held: np.ndarray,
) -> None:
    """Random hashing to as many rows, the mean of five draws."""
    counts, seen = [int(kept[name]) for name in ("users", "items")], [np.asarray(trained.any(at)) for at in (1, 0)]
    found = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        parts = zip(tables, counts, seen, strict=True)
        left, right = (hashed(table, count, own, random) for table, count, own in parts)
        found.append(recall(left @ right.T, known, held))
    share = 100 * sum(counts) / sum(map(len, tables))
    line("  random hashing to as many rows", float(np.mean(found)), share, share)


def line(title: str, found: float, rows: float, size: float) -> None:
    """A row of the table."""
    print(f"{title:<46} recall@20 {found:6.2f}  rows {rows:5.1f} %  bytes {size:5.1f} %", flush=True)


UNTRAINED = {
    "k-means of the rows, 39 %": "rows = kmeans(39%)",
    "graph, resolution 10": f'rows = graph("{FILE}", resolution = 10)',
    "graph, resolution 10, trained rows count": f'rows = graph("{FILE}", resolution = 10, trained = LAST)',
    "k-means of the graph's features, 39 %": f'rows = kmeans(39%, graph = "{FILE}")',
    "the same, trained rows count": f'rows = kmeans(39%, graph = "{FILE}", trained = LAST)',
}


def cluster(pairs: int = 1_000_000, rows: int = 50_000) -> None:
    """Communities and features of a power-law graph."""
    random = np.random.default_rng(0)
    weights = np.arange(1, rows + 1) ** -0.8
    columns = tuple(random.choice(rows, pairs, p=weights / weights.sum()) for _ in range(2))
    found = Interactions("power law", ("left", "right"), (columns[0], columns[1]))
    for name, work in (("features", features), ("communities", lambda one: communities(one, 10.0))):
        start, spent = time.perf_counter(), time.process_time()
        made = work(Lookups(np.bincount(columns[0], minlength=rows), found, 0))
        took = f"{time.perf_counter() - start:.1f} s, {time.process_time() - spent:.1f} s of CPU time"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        groups = len(np.unique(made, axis=0))
        print(f"{name} of {pairs:,} pairs of 2 x {rows:,} rows: {took}, {memory:.2f} GB; {groups:,} differ")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ratings", type=Path, nargs="?", help="ml-100k.inter")
    parser.add_argument("--untrained", action="store_true", help="train on the first part of the time")
    parser.add_argument("--graph", action="store_true", help="cluster a large graph")
    arguments = parser.parse_args()
    print(cpu_name())
    if arguments.graph:
        cluster()
    if arguments.ratings is not None:
        measure(Ratings.read(arguments.ratings), arguments.untrained)


if __name__ == "__main__":
    main()
