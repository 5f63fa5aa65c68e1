"""The loop of a policy, and the data that a compilation works on: given, from the loop, or generated."""

from collections.abc import Mapping

from qcc.compiler.calibrate.chosen_data import chosen_data
from qcc.compiler.calibrate.samples import Data, Samples
from qcc.compiler.console.phases import Phases
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.steps.sampling import Sampling
from qcc.dsl.policy.policy import Policy


def loop_and_data(
    policy: Policy, given: Data | None, opened: OpenModel, sizes: Mapping[str, int], phases: Phases
) -> tuple[Sampling | None, Samples]:
    """The loop that a policy names, if it does, and the samples; where no data is named, they are the loop's own.

    Args:
        policy: says how many, with which seed, and may name a file.
        given: comes before what the policy names.
        opened: the model.
        sizes: of free axes by name, for what is generated.
        phases: timed and told.

    Raises:
        ModelError: the loop or the data does not fit the model, or the model fails.
    """
    original, calibrate = opened.model.reference(), policy.calibrate
    loop = Sampling.of(policy, opened.graph, original)
    if loop is None or given is not None or (calibrate is not None and calibrate.path is not None):
        return loop, chosen_data(policy, given, opened.graph, original, sizes)
    with phases.phase("sample"):
        limit, seed = (calibrate.samples, calibrate.seed) if calibrate else (None, 0)
        return loop, loop.data(opened.graph, limit, seed)
