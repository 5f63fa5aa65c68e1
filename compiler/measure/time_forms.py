"""What a layer costs in each of the forms that it could be stored in, timed on this machine.

One layer is a model of its own: a product with random weights, encoded and written by the same code that writes the
real model, and run by ONNX Runtime in each form and in float, in turn. What is kept is a form's time over float's of
the same rounds, and float's own time once: what was timed on another, busier occasion can then be compared. It is kept
by machine, versions and kernel sources, so that each shape is timed once.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from qcc.codegen.target.cache import add_numbers, read_numbers
from qcc.codegen.target.machine import cpu_name
from qcc.codegen.target.scratch import scratch
from qcc.codegen.target.target import AnyTarget
from qcc.compiler.files.open_model import open_model
from qcc.compiler.measure.timing import NORMAL_99, NOTICEABLE, Turns, interleaved, paired
from qcc.compiler.plan.plan import Kernels
from qcc.compiler.runtime.build_kernels import build_library
from qcc.compiler.runtime.session import Session
from qcc.ir.cores import cores
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.form import Form
from qcc.ir.onnx.file.runtime import onnxruntime
from qcc.passes.contract.activations import Activations
from qcc.passes.contract.contract import Context
from qcc.passes.contract.magnitudes import Magnitudes
from qcc.passes.encode import Encode
from qcc.passes.rounding.nearest import Nearest

OPSET = 21
TURNS = Turns(rounds=15, turn_s=0.002, warm=True, own=True)
ON_THREADS = Turns(rounds=25, turn_s=0.002, warm=True, settle=True)
FLOAT = "float"
LARGE = Magnitudes.of(np.array([4], np.float32))  # numbers of a normal distribution hardly are


@dataclass(frozen=True)
class Case:
    """A layer at a number of rows: weight ``[outputs, inputs]``.

    Where it is a convolution of one point (``pointwise``), rows are positions, and a depthwise one stands before and
    behind it: among such the runtime keeps values in a layout of its own, from and to which a kernel makes it convert.
    """

    outputs: int
    inputs: int
    rows: int
    pointwise: bool = False

    @property
    def unit(self) -> str:
        """What ``rows`` counts."""
        return "position" if self.pointwise else "row"


class Timings:
    """Seconds by case, format and form; measured when first asked for, and kept on disk.

    Args:
        target: by whose providers they are run.
        kernels: the library's processors and arithmetic; None if no form is a kernel.
        tick: told of each layer that is timed.
        threads: of a run. On one, its own processor time counts; on several, the clock on the wall.
    """

    def __init__(
        self, target: AnyTarget, kernels: Kernels | None, tick: Callable[[str], None], threads: int = 1
    ) -> None:
        self._target, self._kernels, self._tick, self.threads = target, kernels, tick, threads
        self.digest = _digest(target, kernels)
        self._name = f"timings-{self.digest}{'' if threads == 1 else f'-{threads}'}.json"
        self._known: dict[str, float] = read_numbers(self._name)

    def seconds(
        self, case: Case, encoding: Encoding | None, forms: tuple[Form, ...], how: Activations | None = None
    ) -> Mapping[Form | str, float]:
        """Seconds of a run in each of the forms, and of the float product under ``float``.

        A form that cannot be told from float takes as long. Without an encoding there are no forms; ``how`` is that of
        what the layer reads.

        Raises:
            QccError: the kernel cannot be built.
        """
        keys = {form: _key(case, encoding, named_form(form, how)) for form in forms}
        base = _key(case, None, FLOAT)
        missing = tuple(form for form, key in keys.items() if key not in self._known)
        if missing or base not in self._known:
            text = encoding.text if encoding else FLOAT
            self._tick(f"{case.outputs}x{case.inputs}, {case.rows} {case.unit}s, {text}")
            seconds = _time(case, encoding, missing, (self._target, self._kernels, self.threads), how)
            self._known.setdefault(base, self._undisturbed(seconds[FLOAT]))
            self._known |= {keys[form]: _told(seconds[form], seconds[FLOAT]) for form in missing}
            self._known |= add_numbers(self._name, self._known)  # another process may have timed others
        whole = self._known[base]
        return {FLOAT: whole} | {form: whole * self._known[key] for form, key in keys.items()}

    def _undisturbed(self, seconds: np.ndarray) -> float:
        """A time of rounds; of those by the clock on the wall one of the least, since what else runs only adds."""
        return float(np.quantile(seconds, 0.5 if self.threads == 1 else 0.1))


def _told(seconds: np.ndarray, base: np.ndarray) -> float:
    """A form's time over float's; one where they cannot be told apart."""
    ratio = paired(seconds, base)
    return ratio.median if ratio.slower or ratio.faster else 1.0


def _time(
    case: Case,
    encoding: Encoding | None,
    forms: tuple[Form, ...],
    on: tuple[AnyTarget, Kernels | None, int],
    how: Activations | None,
) -> dict[Form | str, np.ndarray]:
    """Seconds by form ``[rounds]``."""
    target, kernels, threads = on
    opened_by = partial(Session, threads=threads, providers=target.providers)
    with scratch() as folder:
        path = folder / "float.onnx"
        onnx.save(_layer(case), path)
        sessions: dict[Form | str, Session] = {FLOAT: opened_by(path, kernels=False)}
        for form in forms:
            assert encoding is not None
            encode = Encode(encoding, Nearest(clip="absmax"), form, how and how.of_one_token())
            opened = open_model(path)
            graph = opened.graph
            values = [name for op in graph.ops() for name in (*op.inputs, *op.outputs)]
            named = [weight.name for weight in graph.weights() if weight.constant == "w"]
            encoded, edits = encode.apply(graph, named, Context(magnitudes=dict.fromkeys(values, LARGE)))
            written = opened.model.write(encoded, folder / f"{form}.onnx").path
            ops = {op for edit in edits for op in edit.ops}
            library = folder / f"{form}.so" if ops and kernels is not None else None
            if library is not None and kernels is not None:
                build_library(ops, kernels, library)
            sessions[form] = opened_by(written, kernels=library or False)
        shape = (1, case.inputs, 1, case.rows) if case.pointwise else (case.rows, case.inputs)
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        turns = TURNS if threads == 1 else ON_THREADS
        seconds = interleaved([partial(session.run, {"x": x}) for session in sessions.values()], turns)
        return dict(zip(sessions, seconds, strict=True))


def _layer(case: Case) -> onnx.ModelProto:
    """``y = x @ w``, or a convolution among depthwise ones."""
    if case.pointwise:
        return _convolutions(case)
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {OPSET}]> layer (float[rows, {case.inputs}] x) => '
        f"(float[rows, {case.outputs}] y) {{ y = MatMul (x, w) }}"
    )
    weight = np.random.default_rng(1).standard_normal((case.inputs, case.outputs)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def _convolutions(case: Case) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {OPSET}]> layer (float[1, {case.inputs}, 1, {case.rows}] x) => '
        f"(float[1, {case.outputs}, 1, {case.rows}] y) {{ a = Conv <group: int = {case.inputs}> (x, before) "
        f"b = Conv (a, w) y = Conv <group: int = {case.outputs}> (b, after) }}"
    )
    random = np.random.default_rng(1)
    for name, shape in (
        ("before", (case.inputs, 1)), ("w", (case.outputs, case.inputs)), ("after", (case.outputs, 1))
    ):  # fmt: skip
        weight = random.standard_normal((*shape, 1, 1)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    return model


def named_form(form: Form, how: Activations | None) -> str:
    """A form with how activations are rounded in it."""
    return form.name if how is None else f"{form.name} {how.when}"


def _key(case: Case, encoding: Encoding | None, form: str) -> str:
    text = "" if encoding is None or form == FLOAT else f" {encoding.text}"
    return f"{case.outputs}x{case.inputs} {case.unit}s {case.rows}{text} {form}"


def _digest(target: AnyTarget, kernels: Kernels | None) -> str:
    """What the times depend on beside the layer: how they are taken, processor, versions, kernels."""
    made = target.digest(), target.providers, kernels and kernels.text
    facts = ("ratios", NORMAL_99, NOTICEABLE, TURNS, cpu_name(), cores(), onnxruntime.__version__, made)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
