"""How the rows of tables are looked up: by calibration data that is given, and by files of interactions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qcc.compiler.calibrate.interactions import InteractionFile
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.inputs import InputFile
from qcc.dsl.diagnostics.report import Diagnostics
from qcc.ir.encoding.algebra import Encoding, MatrixShape
from qcc.ir.encoding.tables.lookups import CALIBRATION, WHERE_GIVEN, Lookups
from qcc.ir.errors import ModelError
from qcc.ir.graph.graph import Graph, needed
from qcc.ir.graph.ops import Kind, Op, Weight
from qcc.ir.regions.flow import Flow

COUNTED = frozenset((CALIBRATION, WHERE_GIVEN))
STEPS = 16  # from an input to where it is looked up
SAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class FoundLookups:
    """What is known of the rows of tables, by weight name and source, and the files that told it."""

    by_weight: Mapping[str, Mapping[str, Lookups]] = field(default_factory=dict)
    files: tuple[InputFile, ...] = ()
    shapes: Mapping[str, MatrixShape] = field(default_factory=dict)

    def warn_of_merged(self, stored: Mapping[str, Encoding], diagnostics: Diagnostics) -> None:
        """Tell what rows of tables are the same from now on.

        Args:
            stored: what weights are stored in, by name.
            diagnostics: of the compilation.
        """
        for name, encoding in stored.items():
            known = self.by_weight.get(name, {})
            told = encoding.warning(self.shapes[name], known) if known else ""
            before = [one.message for one in diagnostics.found if one.code == "Q351"]
            if told and not any(one.startswith(f"`{name}`: ") for one in before):
                help = "their ids are the same to the model; let data that is like what it will see tell"
                diagnostics.warning("Q351", f"`{name}`: {told}", help=help)


def find_lookups(graph: Graph, asked: Mapping[str, Sequence[Encoding]], data: Samples, folder: Path) -> FoundLookups:
    """What the encodings that weights may get go by.

    Args:
        graph: whose weights they are.
        asked: the encodings of each weight, by its name; what goes by nothing needs nothing.
        data: calibration data.
        folder: in which files of interactions lie.

    Raises:
        ModelError: a file or the data tells nothing of a table, or not enough.
    """
    wanted = {name: sorted({one for each in found for one in each.sources}) for name, found in asked.items()}
    wanted = {name: sources for name, sources in wanted.items() if sources}
    weights = {one.name: one for one in graph.weights() if one.name in wanted}
    if not weights:
        return FoundLookups()
    names = sorted({one for name in weights for one in wanted[name]} - COUNTED)
    files = {name: InteractionFile.read(folder / name, name) for name in names}
    flow, found = Flow(graph), dict[str, dict[str, Lookups]]()
    asking = [one for name, one in weights.items() if CALIBRATION in wanted[name]]
    if not data.generated:
        asking += [one for name, one in weights.items() if WHERE_GIVEN in wanted[name] and _is_told(one)]
    counted = _counted(graph, list(dict.fromkeys(asking)), data)
    for name, weight in weights.items():
        called, rows = _called(flow, weight), weight.shape[0]
        found[name] = {one: files[one].of(called, name, rows) for one in wanted[name] if one not in COUNTED}
        found[name] |= dict.fromkeys(COUNTED, Lookups(counted[name])) if name in counted else {}
        for encoding in asked[name]:
            encoding.check_lookups(found[name])
    shapes = {name: one.shape for name, one in weights.items()}
    return FoundLookups(found, tuple(InputFile.of(one.path) for one in files.values()), shapes)


def _called(flow: Flow, weight: Weight) -> tuple[str, ...]:
    """What the column of a table may be called: like the input that is looked up, the layer, or the weight."""
    inputs: list[str] = []
    layers = [one for one in weight.layers if one.kind is Kind.EMBEDDING]
    for layer in layers:
        chain = [layer.input]
        while len(chain) < STEPS and (maker := flow.maker(chain[-1])) is not None and _keeps_numbers(maker):
            chain.append(maker.inputs[0])
        inputs += reversed(chain)
    return tuple(dict.fromkeys(one for one in (*inputs, *(n for one in layers for n in one.names), weight.name) if one))


def _keeps_numbers(op: Op) -> bool:
    return op.kind in (Kind.RESHAPE, Kind.TRANSPOSE) or op.function in ("cast", "identity")


def _ids(weight: Weight) -> list[str]:
    """The values by which a table is looked up."""
    return [layer.input for layer in weight.layers if layer.input and layer.kind is Kind.EMBEDDING]


def _is_told(weight: Weight) -> bool:
    return len(_ids(weight)) == sum(layer.kind is Kind.EMBEDDING for layer in weight.layers) > 0


def _counted(graph: Graph, weights: Sequence[Weight], data: Samples) -> dict[str, np.ndarray]:
    """How often the data looks up each row of some tables, by weight name.

    Raises:
        ModelError: the data is generated, or does not run.
    """
    ids = {one.name: _ids(one) for one in weights}
    if not ids:
        return {}
    name = next(iter(ids))
    if data.generated:
        message = f"rows of `{name}` are kept by how often they are looked up, and no calibration data is given"
        raise ModelError("Q345", message, help='give some: `calibrate "data.npz"`, or `--data data.npz`')
    if not all(ids.values()):
        name = next(one for one, values in ids.items() if not values)
        message = f"how often rows of `{name}` are looked up cannot be told: it is looked up in a branch or a loop"
        raise ModelError("Q345", message, help='give a file of interactions: `seen = "interactions.npz"`')
    rows = {one.name: one.shape[0] for one in weights}
    found = {one: np.zeros(count, np.int64) for one, count in rows.items()}
    fed = {one.name for one in graph.inputs}
    values = sorted({value for one in ids.values() for value in one})
    made = [value for value in values if value not in fed]
    reads = [one.name for one in graph.inputs if one.name in needed(graph, made)]
    runner = graph.runner(reads, made) if made else None
    for batch in data.parts(SAMPLES_AT_ONCE):
        seen = {value: np.asarray(batch[value]) for value in values if value in fed}
        seen |= runner({one: batch[one] for one in reads}) if runner else {}
        for one, asked in ids.items():
            for value in asked:
                flat = seen[value].reshape(-1).astype(np.int64)
                found[one] += np.bincount(flat % max(rows[one], 1), minlength=rows[one])  # below zero, from the end
    return found
