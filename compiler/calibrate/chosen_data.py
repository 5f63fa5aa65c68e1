"""The data that a policy's model is measured and verified on: what is given, what the policy names, or generated."""

from collections.abc import Mapping

from qcc.compiler.calibrate.fit_samples import fit_samples
from qcc.compiler.calibrate.samples import Data, Samples, load
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
    data = calibrate.path if given is None and calibrate is not None else given
    if data is None:
        return fit_samples(graph, runner, limit, seed, sizes)
    if sizes:
        raise ModelError("Q428", "sizes of axes are for generated inputs, and there is data", help="leave them out")
    return load(data, graph, limit, seed)
