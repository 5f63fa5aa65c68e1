"""The data that a policy's model is measured and verified on: what is given, what the policy names, or generated."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from qcc.compiler.calibrate.arrays import flattened
from qcc.compiler.calibrate.choose.prototypes import prototypes
from qcc.compiler.calibrate.fit_samples import fit_samples
from qcc.compiler.calibrate.generate import Batch
from qcc.compiler.calibrate.samples import Data, Samples, finite, load
from qcc.compiler.calibrate.sources.source import DataSource
from qcc.dsl.policy.data_words import numbers_of
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, Runner


def chosen_data(policy: Policy, given: Data | None, graph: Graph, runner: Runner, sizes: Mapping[str, int]) -> Samples:
    """The samples of a compilation.

    Args:
        policy: says how many, with which seed, and may name a file.
        given: comes before what the policy names.
        graph: whose inputs they are for.
        runner: of the model as it came in.
        sizes: of free axes by name, for what is generated.

    Raises:
        ModelError: the data does not fit the model, or none can be generated.
    """
    calibrate = policy.calibrate
    seed = calibrate.seed if calibrate else 0
    limit = calibrate.samples if calibrate else None
    data = named_data(policy) if given is None else given
    if data is None:
        return fit_samples(graph, runner, limit, seed, sizes)
    if sizes:
        raise ModelError("Q428", "sizes of axes are for generated inputs, and there is data", help="leave them out")
    chosen = limit is not None and calibrate is not None and calibrate.select == "prototypes"
    found = load(data, graph, None if chosen else limit, seed)
    found = _apart(found, runner)
    _see_what_is_odd(found, runner)
    if not chosen or limit is None:
        return found
    best = prototypes(found, graph, limit)
    return replace(best.samples, origin=f"{found.origin}, {best.text}")


def named_data(policy: Policy) -> Data | None:
    """What a policy names; None where it is to be generated."""
    found = policy.calibrate
    if found is None or found.path is None or not DataSource.takes(Path(found.path)):
        return None if found is None else found.path
    mean, std = (
        (default,) if text is None else numbers_of(text) or (default,)
        for text, default in ((found.mean, 0.0), (found.std, 1.0))
    )
    return DataSource(Path(found.path), None if found.tokenizer is None else Path(found.tokenizer), mean, std)


def _apart(samples: Samples, runner: Runner) -> Samples:
    """Samples one by one where the model takes no more at once: a state that all share is often of one alone."""
    batch = samples.batches[0]
    arrays = {name: array for name, array in batch.items() if isinstance(array, np.ndarray) and array.ndim > 1}
    shared = [name for name, array in arrays.items() if samples.axis(name, array) is None]
    if not samples.divisible or not shared or samples.size(batch) == 1:
        return samples
    alone = tuple(samples.parts(1))
    if _runs(runner, batch) or not _runs(runner, alone[0]):
        return samples
    return replace(samples, batches=alone, divisible=False)


def _runs(runner: Runner, batch: Batch) -> bool:
    try:
        runner(batch)
    except ModelError:
        return False
    return True


def _see_what_is_odd(samples: Samples, runner: Runner) -> None:
    """Data that is not finite is taken where the model makes something finite of it, as of a mask that adds -inf.

    Raises:
        ModelError: it does not.
    """
    odd = [batch for batch in samples.batches if not all(map(finite, batch.values()))] if samples.odd else []
    for batch in odd:
        spoilt = next((name for name, array in flattened(runner(batch)).items() if not finite(array)), None)
        if spoilt is not None:
            raise ModelError("Q424", f"{samples.odd}, and so does the output `{spoilt}` of the model then")
