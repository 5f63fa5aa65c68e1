"""A model that is being compiled."""

from dataclasses import dataclass

from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.inputs import Inputs
from qcc.compiler.files.open_model import OpenModel
from qcc.compiler.plan.plan import Plan
from qcc.compiler.report.lock import policy_sha256
from qcc.dsl.policy.policy import Policy
from qcc.ir.graph import in_pieces
from qcc.ir.graph.graph import Graph

SMALL_BYTES = 1 << 27


@dataclass(frozen=True)
class ModelInWork:
    """A model ready to compile: cleaned, bound to a plan, with what the cleaning did, and then the rewriting."""

    graph: Graph
    plan: Plan
    data: Samples
    timed: Samples
    """What is timed: the data, or a step of a model of tokens."""
    inputs: Inputs
    file: OpenModel
    """The model as it was opened."""
    rewrites: tuple[RewriteRow, ...] = ()

    @property
    def large(self) -> bool:
        """It is worked on in pieces, and goes on where it was killed."""
        return self.file.size_bytes > in_pieces.LARGE_BYTES

    @property
    def small(self) -> bool:
        """It may be written out once more for what is worth telling alone."""
        return self.file.size_bytes <= SMALL_BYTES

    def run(self, policy: Policy) -> str:
        """A hash of what decides what its weights become, where some of that is kept on disk; else nothing."""
        if not (self.large or policy.reconstruct):
            return ""
        return f"{self.inputs.digest} {self.data.digest} {policy_sha256(policy)}"
