"""Reading a policy with all that this compiler knows."""

from collections.abc import Mapping
from pathlib import Path

from qcc.compiler.plan.catalog import Export, schema
from qcc.dsl import load
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.dsl.policy.policy import Policy


def load_policy(
    path_or_preset: str | Path, definitions: Mapping[str, str] | None = None, *, report: Diagnostics | None = None
) -> Policy:
    """Read a policy.

    Args:
        path_or_preset: a ``.qpolicy`` file, or a preset's name.
        definitions: values of the policy's parameters, as ``-D`` gives them.
        report: takes the warnings.

    Raises:
        QccError: with everything that is wrong.
    """
    return load.load_policy(path_or_preset, schema(), definitions, report=report)


def export_of(policy: Policy) -> Export:
    """How a policy has the model written."""
    return policy.export if isinstance(policy.export, Export) else Export()
