"""A model opened as a policy asks for it: with the adapters that it names."""

from pathlib import Path

from qcc.compiler.adapters.adapted import AdaptedModel, adapter_sources
from qcc.compiler.calibrate.fit_samples import fit_samples
from qcc.compiler.files.open_model import OpenModel, cleaned_model
from qcc.dsl.policy.policy import Policy
from qcc.ir.graph.graph import Graph, Runner
from qcc.ir.graph.ops import Feeds
from qcc.ir.open_file import open_file

SAMPLES, SEED = 3, 0


def open_adapted(path: Path, policy: Policy) -> OpenModel:
    """Open a model, put a policy's adapters into it, and clean it.

    Raises:
        ModelError: it cannot be read, or an adapter does not fit.
    """
    sources, base = adapter_sources(policy), open_file(path)
    return cleaned_model(AdaptedModel(base, sources, _sample) if sources else base, path)


def _sample(graph: Graph, runner: Runner) -> Feeds:
    return fit_samples(graph, runner, SAMPLES, SEED).batches[0]
