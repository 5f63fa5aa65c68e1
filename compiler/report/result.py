"""What a compilation did: the facts that the table, the JSON, the lock file and the HTML report are made of."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from qcc.compiler.adapters.merge import MergedAdapter
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.calibrate.coverage import Coverage
from qcc.compiler.files.check_outputs import OutputFiles
from qcc.compiler.measure.time_model import ModelTimes
from qcc.compiler.plan.plan import Plan
from qcc.compiler.report.reach import Reach
from qcc.compiler.steps.told import LoopTold
from qcc.compiler.verify.outputs import Verification
from qcc.compiler.work.taken import Taken
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.ir.model.options import ONNX
from qcc.passes.contract.holes import Holes
from qcc.passes.contract.spread import Spread


@dataclass(frozen=True)
class LayerRow:
    """One weight of the model.

    ``error`` is noise power over signal power in the weight; ``loss`` the same at the model's output, where the
    allocator measured it; ``reason`` says why this form, or why it was kept; ``chosen`` what data decided about the
    rounding, and ``data`` how much there was, where something asked for it; ``spread`` how the numbers lie that were
    encoded. Of a weight of which some is left out, ``holes`` tells what it keeps, ``gathered`` what blocks would have
    kept and keep in the order of their channels, and ``gain`` how many times as long our best dense kernel takes, where
    both were timed.
    """

    name: str
    kinds: tuple[str, ...]
    shape: tuple[int, int]
    format: str
    form: str
    size_bytes: int
    original_bytes: int
    bits: float
    """Bits a weight, scales and zero points included."""
    error: float
    loss: float | None
    reason: str
    chosen: str = ""
    data: Coverage | None = None
    spread: Spread | None = None
    holes: Holes | None = None
    gathered: tuple[float, float] | None = None
    gain: float | None = None

    @property
    def params(self) -> int:
        """How many numbers the weight holds."""
        return self.shape[0] * self.shape[1]


def average_bits(rows: Iterable[LayerRow]) -> float | None:
    """Bits a weight over all of them, scales and zero points included; None where there is none."""
    listed = list(rows)
    params = sum(row.params for row in listed)
    return sum(row.bits * row.params for row in listed) / params if params else None


@dataclass(frozen=True)
class Alternative:
    """What one weight could have become: what it would take, and lose at the outputs if it alone did."""

    layer: str
    format: str
    size_bytes: float
    loss: float
    chosen: bool


@dataclass(frozen=True)
class Allocation:
    """What the integer program decided, and how sure it is."""

    objective: str
    limits: tuple[str, ...]
    options: int
    candidates: int
    measured: int
    gap: float
    predicted_error: float | None
    """None where the decision rests on no errors, and none were measured."""
    held_out: int = 0
    """Samples that measured, if statistics that chose the codes have not seen them."""
    metric: str = "output_error"
    """What the error is measured in."""
    caches: int = 0
    """Of the options, those that are no layers."""
    least_error: float | None = None
    """What no choice can lose less than, by a closed form; None where no size is bounded."""
    equal_slope: float | None = None
    """What one price for all of what is bounded, a byte or energy, would have lost; None where not one row alone is."""
    rivals: tuple[float, float] | None = None
    """What the chosen mix of formats and the best single format lost, all weights together, where both were run."""
    balance: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """What each of several metrics loses, and what it would if one decided for all layers."""
    rounds: int = 0
    """Files that were written and judged, where the smallest that holds its bounds was searched for."""
    frontier: tuple[tuple[float, float], ...] = ()
    """Sizes of files with the least loss for each, the smallest first; empty where losses were not measured."""
    alternatives: tuple[Alternative, ...] = ()
    """All that was measured, weight by weight."""


@dataclass(frozen=True)
class Result:
    """A finished compilation; the files exist unless ``written`` is false (verification failed).

    Where the verification failed and the files are kept, their names tell it.
    """

    source: Path
    """The file that was compiled."""
    output: Path
    lock: Path
    report: Path
    written: bool
    input_bytes: int
    output_bytes: int
    layers: tuple[LayerRow, ...]
    plan: Plan
    edits: tuple[str, ...]
    allocation: Allocation | None
    verification: Verification
    warnings: tuple[Diagnostic, ...]
    seconds: dict[str, float]
    rewrites: tuple[RewriteRow, ...] = ()
    loop: LoopTold | None = None
    """What became of the loop that the model is run in."""
    adapters: tuple[MergedAdapter, ...] = ()
    """What was put into the weights before all else."""
    kernels: Path | None = None
    """The library of kernels beside the model, if there is one."""
    ops: tuple[str, ...] = ()
    """The kernel ops that the model calls, in alphabetical order."""
    data: Path | None = None
    """The file beside the model that its weights lie in, if they lie apart."""
    packed: Path | None = None
    """The model for transport, if it was asked for."""
    packed_bytes: int = 0
    """What that takes."""
    times: ModelTimes | None = None
    """Of the input and the written model; None where the verification failed."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no warning."""
    costs: tuple[Taken, ...] = ()
    """What is taken of the rows that the policy asked for beside bytes, loss and time."""

    reach: Reach | None = None
    """Which bytes of the input were reached, and why the others were not."""
    model: Any = None
    """What was made of a model in memory, to be called as that was; None of one in a file, or of a failed one."""

    as_onnx: Callable[[Path, bool], "Result"] | None = field(default=None, repr=False, compare=False)
    """Compiles a model of another framework as ONNX, under this plan; None of what is ONNX."""

    @property
    def cache(self) -> Path | None:
        """What a prefix fills the model's caches with at first, ``.npz``; None without one."""
        filled = any(one.cache is not None for one in self.adapters)
        return OutputFiles.of(self.output).cache if filled else None

    def __repr__(self) -> str:
        """A line: a result holds thousands of rows."""
        return f"<qcc.Result {', '.join(f'{name} {value}' for name, value in self._summary())}>"

    def _repr_html_(self) -> str:
        """What a notebook shows; the report beside the model has all."""
        cells = [f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._summary()]
        return f"<table>{''.join(cells)}</table>"

    def _summary(self) -> list[tuple[str, str]]:
        encoded = sum(bool(one.form) for one in self.layers)
        share = f", {self.output_bytes / self.input_bytes:.1%}" if self.input_bytes else ""
        bounds = self.verification.bounds
        held = "passed" if self.passed else "failed"
        run = f", of {self.verification.stand_in}" if self.verification.stand_in else ""
        return [
            ("model", str(self.output if self.written else self.source)),
            ("bytes", f"{self.input_bytes:,} -> {self.output_bytes:,}{share}"),
            ("layers", f"{encoded:,} of {len(self.layers):,} encoded"),
            ("verification", f"{held}, {len(bounds)} bound{'' if len(bounds) == 1 else 's'}{run}"),
            ("report", str(self.report) if self.written else "none"),
        ]

    def to_onnx(self, path: str | Path, *, keep_failed: bool = False) -> "Result":
        """Write the ONNX model that compiling the export of a PyTorch model gives: same plan, kernels beside it.

        The model is exported and compiled under the plan that was decided, on the same data; data that can be read
        but once is gone.

        Args:
            path: of the ``.onnx`` file; lock and report go beside it.
            keep_failed: write a model whose verification fails, too, under a name that tells it.

        Returns:
            What was done. If the verification fails, nothing is written.

        Raises:
            QccError: the model is ONNX already, cannot be exported, or no such file can be written.
        """
        if self.as_onnx is None:
            raise QccError([Diagnostic("Q383", f"`{self.output}` is ONNX already", help="copy it")])
        if Path(path).suffix != ONNX:
            raise QccError([Diagnostic("Q383", f"`{path}` is no name of an ONNX model", help=f"end it in `{ONNX}`")])
        return self.as_onnx(Path(path), keep_failed)

    @property
    def passed(self) -> bool:
        """The verification's bounds hold."""
        return self.verification.passed
