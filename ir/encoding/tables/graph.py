"""Rows as nodes of a graph of what was looked up together: communities of them, and numbers that tell them apart."""

import importlib.util
from functools import lru_cache

import numpy as np

from qcc.ir.encoding.tables.lookups import Interactions, Lookups
from qcc.ir.errors import ModelError

MOST_EDGES = 100_000
"""That are clustered without scikit-network."""
FEATURES = 64
STEPS = 3
"""From a node to those that tell of it; the first step leads to the other table, and is left out."""


def check_size(interactions: Interactions) -> None:
    """See that so many interactions can be clustered here.

    Raises:
        ModelError: there are many, and the library for many is missing.
    """
    count = len(_edges(interactions)[0])
    if count > MOST_EDGES and importlib.util.find_spec("sknetwork") is None:
        message = f"`{interactions.source}` has {count:,} pairs: more than {MOST_EDGES:,} take scikit-network"
        help = 'install it, as `pip install "qcc[graphs]"` does, or cluster without it: `kmeans(25%, graph = ...)`'
        raise ModelError("Q350", message, help=help)


def communities(lookups: Lookups, resolution: float) -> np.ndarray:
    """A number of each row of a table: of its community, from 0 on; rows that are in no pair are one more.

    Communities hold rows of both tables, and are found by Louvain's method.

    Args:
        lookups: of the table, with interactions.
        resolution: the larger, the smaller communities are.

    Source: GraphHash, Wu et al. 2024 (arXiv:2412.17245), section 4.1.
    """
    assert lookups.of is not None
    both = _communities(lookups.of, resolution)[lookups.side]
    found = np.full(len(lookups.counts), both.max(initial=-1) + 1)
    seen = np.flatnonzero(lookups.counts)
    found[seen] = both[seen]
    return np.asarray(np.unique(found, return_inverse=True)[1].reshape(-1), np.int64)


@lru_cache(maxsize=8)
def _communities(interactions: Interactions, resolution: float) -> tuple[np.ndarray, np.ndarray]:
    check_size(interactions)
    left, right = _edges(interactions)
    sizes = tuple(int(one.max(initial=-1)) + 1 for one in (left, right))
    if len(left) > MOST_EDGES:
        labels = _with_sknetwork(left, right, sizes[0], sizes[1], resolution)
    else:
        labels = _with_networkx(left, right, sizes[0], sizes[1], resolution)
    return labels[: sizes[0]], labels[sizes[0] :]


def _with_networkx(left: np.ndarray, right: np.ndarray, lefts: int, rights: int, resolution: float) -> np.ndarray:
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(lefts + rights))
    graph.add_edges_from(zip(left.tolist(), (right + lefts).tolist(), strict=True))
    labels = np.zeros(lefts + rights, np.int64)
    for number, members in enumerate(networkx.community.louvain_communities(graph, resolution=resolution, seed=0)):
        labels[list(members)] = number
    return labels


def _with_sknetwork(left: np.ndarray, right: np.ndarray, lefts: int, rights: int, resolution: float) -> np.ndarray:
    from scipy import sparse
    from sknetwork.clustering import Louvain

    pairs = sparse.csr_matrix((np.ones(len(left), bool), (left, right)), shape=(lefts, rights))
    found = Louvain(resolution=resolution, modularity="newman", random_state=0)
    found.fit(pairs, force_bipartite=True)
    return np.concatenate([found.labels_row_, found.labels_col_]).astype(np.int64)


def features(lookups: Lookups) -> np.ndarray:
    """Numbers of each row of a table by what it was looked up with, float32 ``[rows, FEATURES]``.

    Each node starts with very sparse random numbers, and takes the mean of its neighbours' a few times: rows that lead
    to the same nodes end alike. Each step counts the same.

    Source: FastRP, Chen et al. 2019 (arXiv:1908.11512), algorithm 1, with equal weights of the steps behind the first,
    and no weight by degree: both were no better on interactions of MovieLens that were held out.
    """
    assert lookups.of is not None
    found = np.zeros((len(lookups.counts), FEATURES), np.float32)
    both = _features(lookups.of)[lookups.side]
    found[: len(both)] = both
    return found


@lru_cache(maxsize=8)
def _features(interactions: Interactions) -> tuple[np.ndarray, np.ndarray]:
    from scipy import sparse

    left, right = _edges(interactions)
    lefts, rights = (int(one.max(initial=-1)) + 1 for one in (left, right))
    nodes = lefts + rights
    ends = np.concatenate([left, right + lefts]), np.concatenate([right + lefts, left])
    degree = np.maximum(np.bincount(ends[0], minlength=nodes), 1)
    step = sparse.csr_matrix(((1 / degree[ends[0]]).astype(np.float32), ends), shape=(nodes, nodes))
    root = np.sqrt(nodes)
    draw = np.random.default_rng(0).random((nodes, FEATURES), np.float32)
    now = np.where(draw < 0.5 / root, root, np.where(draw < 1 / root, -root, 0)).astype(np.float32)
    total = np.zeros_like(now)
    for at in range(STEPS):
        now = step @ now
        if at:
            norms = np.linalg.norm(now, axis=1, keepdims=True)
            total += np.divide(now, norms, out=np.zeros_like(now), where=norms > 0)
    return total[:lefts], total[lefts:]


@lru_cache(maxsize=8)
def _edges(interactions: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """The pairs, each once."""
    left, right = interactions.columns
    wide = int(right.max(initial=-1)) + 1
    pairs = np.unique(left * max(wide, 1) + right)
    return pairs // max(wide, 1), pairs % max(wide, 1)
