"""A step of a model of tokens: one token behind so many others, as what latency is taken of."""

from collections.abc import Mapping

import numpy as np

from qcc.compiler.calibrate.samples import Samples, load
from qcc.compiler.plan.costs import GENERATION, LATENCY, asked_rows, latency_bound
from qcc.compiler.sequence.states import TokenModel, token_model
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Feeds

SEED = 0


def behind(policy: Policy) -> int | None:
    """How many tokens are before the one that latency is of: on average over those that are generated.

    None where the policy does not say, so that latency is of a sample.
    """
    bound = latency_bound(policy)
    said = {} if bound is None else dict(bound.counts)
    if any(name not in said for name in GENERATION):
        return None
    context, generate = (said[name] for name in GENERATION)
    return context + generate // 2


def model_of_steps(graph: Graph, data: Samples) -> tuple[TokenModel, Feeds]:
    """What a model of tokens takes and gives, and a sample of it.

    Raises:
        ModelError: it is none that goes on where an earlier run ended.
    """
    feeds = next(data.first(1).parts(1))
    runner = graph.runner([value.name for value in graph.inputs], [value.name for value in graph.outputs])
    model = token_model(graph, runner, feeds)
    if model is None:
        message = "a bound behind a context is of models that go on where an earlier run ended, and this is none"
        raise ModelError("Q774", message, help='give it texts, `calibrate "text.npz"`, or leave the context out')
    return model, feeds


def step_feeds(model: TokenModel, feeds: Feeds, length: int) -> Mapping[str, Array]:
    """One token behind so many others; what caches hold is drawn, as no time depends on it."""
    found = dict[str, Array]()
    for name, part in model.parts.items():
        last = feeds[name][:1] if part == "whole" else feeds[name][:1, -1:]
        found[name] = np.repeat(last, length + 1, 1) if part == "all" else last
    draw = np.random.default_rng(SEED)
    for name in model.caches:
        _, heads, _, width = feeds[name].shape
        found[name] = draw.standard_normal((1, heads, length, width), np.float32)
    return found


def step_samples(policy: Policy, graph: Graph, data: Samples) -> Samples:
    """What latency is taken of: a step where the policy says so, else the data.

    Raises:
        ModelError: the model has no steps.
    """
    length = behind(policy)
    if length is None or LATENCY not in asked_rows(policy):
        return data
    model, feeds = model_of_steps(graph, data)
    return load([step_feeds(model, feeds, length)], graph, None, SEED)
