"""The vocabulary: all definitions, found in the modules of `ops`."""

import pkgutil
from collections.abc import Mapping

import qcc.ir.vocabulary.ops as folder
from qcc.ir.discovery import load
from qcc.ir.vocabulary.definition import EpilogueStep, OpDef


def _found() -> tuple[OpDef, ...]:
    """What the modules define, alone or in tuples, each once."""
    names = sorted(one.name for one in pkgutil.iter_modules(folder.__path__))
    members = [one for name in names for one in vars(load(f"{folder.__name__}.{name}")).values()]
    flat = [inner for one in members for inner in (one if isinstance(one, tuple) else (one,))]
    return tuple(dict.fromkeys(one for one in flat if isinstance(one, OpDef)))


OPS: Mapping[tuple[str, str], OpDef] = {(one.kind, one.function): one for one in _found()}
"""By kind and function."""
ACTIVATIONS: Mapping[str, EpilogueStep] = {
    step.name: step for one in OPS.values() for step in one.steps if step.activates
}
"""Steps that are functions of single values, by name."""
NORMS: Mapping[str, EpilogueStep] = {step.name: step for one in OPS.values() for step in one.steps if step.whole}
"""Steps that are norms, by name."""
STEPS: Mapping[str, EpilogueStep] = {step.name: step for one in OPS.values() for step in one.steps}
"""All steps, by name."""
