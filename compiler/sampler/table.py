"""A loop as a table: all that a solver decides, so that whoever runs it needs no solver.

Each row says what the model is told of the step, how its output and the latent make an estimate of the clean sample,
and how the latent and the newest estimates make the next latent. Every solver with linear steps is such a table.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qcc.ir.model.options import LOOP

FORMAT = 1
WHOLE = "full"
ROW = "qcc.row"
"""The input of a graph that reuses: which row of its corrections holds."""


@dataclass(frozen=True)
class TableRow:
    """One evaluation.

    Args:
        step: what the model is told.
        clean: the shares of the latent and of the model's output in the estimate of the clean sample.
        keep: the share of the latent in the next one.
        weights: the shares of the estimates in it, the newest first.
        noise: how much new noise is added.
        graph: the one that is run.
        row: of its corrections.
    """

    step: float
    clean: tuple[float, float]
    keep: float
    weights: tuple[float, ...]
    noise: float = 0.0
    graph: str = WHOLE
    row: int = 0


@dataclass(frozen=True)
class LoopTable:
    """A loop.

    Args:
        latent: the input that is fed with what the loop makes.
        step: the input that is told the step; empty if there is none.
        output: that the loop goes by.
        rows: the evaluations.
        scale: of the first noise.
        inputs: the values of other inputs, of which each seed takes one in turn.
        sizes: of the latent's free axes, by name.
        graphs: the files that are run, by the names that rows have for them; empty for the model itself.
        seeds: that the loop was chosen on.
    """

    latent: str
    step: str
    output: str
    rows: tuple[TableRow, ...]
    scale: float = 1.0
    inputs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    graphs: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    @property
    def whole(self) -> int:
        """How many evaluations run the whole model."""
        return sum(row.graph == WHOLE for row in self.rows)

    def running(self, graphs: Mapping[str, str]) -> "LoopTable":
        """The same with files."""
        return replace(self, graphs=dict(graphs))

    @property
    def json(self) -> dict[str, Any]:
        """For a file."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def text(self) -> str:
        """The file's text, one evaluation a line."""
        content = self.json
        rows = ",\n  ".join(json.dumps(row) for row in content.pop("rows"))
        head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
        return f'{head},\n "rows": [\n  {rows}\n ]\n}}\n'


def from_text(text: str) -> LoopTable:
    """A table from its file's text.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError("it is of another format")
        rows = tuple(
            TableRow(**{**row, "clean": tuple(row["clean"]), "weights": tuple(row["weights"])})
            for row in content.pop("rows")
        )
        inputs = {name: tuple(values) for name, values in content.pop("inputs").items()}
        return LoopTable(**{**content, "seeds": tuple(content["seeds"])}, rows=rows, inputs=inputs)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no table of a loop: {error}") from error


def earlier_files(model: Path) -> tuple[Path, ...]:
    """What an earlier run wrote beside a model of this name: the table of a loop, and graphs that are its own."""
    path = beside(model)
    try:
        graphs = from_text(path.read_text(encoding="utf-8")).graphs.values()
    except (OSError, ValueError):
        return ()
    own = [name for name in graphs if name != model.name and Path(name).name == name]
    return (path, *(path.with_name(name) for name in own if name.startswith(f"{model.stem}.")))


def beside(model: Path) -> Path:
    """Where the table of a model's loop lies: ``net.sampler.json`` beside ``net.onnx``."""
    return model.with_suffix(LOOP)
