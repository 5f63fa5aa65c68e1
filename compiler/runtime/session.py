"""Running a model that was written in ONNX Runtime, with its kernel library where there is one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from qcc.compiler.console.byte_size import byte_size
from qcc.compiler.files.kernel_library import find
from qcc.compiler.runtime.fitting import fitting, whole
from qcc.compiler.runtime.kernel_nodes import KernelNode, kernel_nodes, listing, summary
from qcc.compiler.runtime.loop import driver_of
from qcc.compiler.runtime.register import register
from qcc.compiler.runtime.waiting import AWAKE_US, wait_awake
from qcc.compiler.sampler.drive import Driver
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError
from qcc.dsl.diagnostics.spelling import did_you_mean
from qcc.ir.cores import runtime_threads
from qcc.ir.encoding.cached.stored import NOTE, StoredCache, coded, decoded, of_note
from qcc.ir.errors import ModelError, first_line
from qcc.ir.graph.ops import Value
from qcc.ir.kernel.loadable import loadable
from qcc.ir.model.options import ONNX
from qcc.ir.onnx.file.load import parse
from qcc.ir.onnx.file.runtime import onnxruntime, usable
from qcc.ir.onnx.file.save import whole_size
from qcc.ir.open_file import is_program

PREFIX = "qcc."
DTYPES = {"float": "float32", "double": "float64"}
CONTAINERS = {"tensor": "", "seq": "sequence"}


class Session:
    """A model ready to run.

    ``inputs`` and ``outputs`` say what it takes and gives; ``provenance`` what its compilation left in it; ``kernels``
    which library is loaded, None without one; ``nodes`` which of its nodes the library runs.

    Args:
        path: an ``.onnx`` file, or one for transport (``.rans``), which is expanded to a folder that is gone
            afterwards.
        kernels: the kernel library. None takes ``MODEL.kernels.so`` beside the model if it is there, True insists on
            it, False does without, and a path names another file.
        threads: that a run may use; None leaves it to the runtime, which takes all cores.
        providers: the runtime's execution providers, as far as it has them; without any, the CPU's.
        awake_us: microseconds that a thread waits for work before it sleeps; None leaves it to the runtime, where it is
            3 to 500 ms by the processor, in which it keeps a core from others, those of the run among them. Older
            runtimes know their own alone.
        memory: what may be loaded of the model, as in ``"45 MiB"`` or in bytes: of one whose weights are stacks of
            levels, as many as fit. It bounds what is stored; a weight that is decoded when the session starts takes its
            floats beside it.

    Raises:
        QccError: a file is missing, the library cannot be loaded, or the runtime refuses the model; or the model is
            larger than the memory, whatever is left out of it.
        ValueError: ``threads`` is less than one, ``awake_us`` less than none, or ``memory`` is no size.
    """

    def __init__(
        self,
        path: str | Path,
        kernels: bool | str | Path | None = None,
        threads: int | None = None,
        providers: Sequence[str] = (),
        memory: str | int | None = None,
        awake_us: int | None = AWAKE_US,
    ) -> None:
        most = byte_size(memory)[0] if isinstance(memory, str) else memory
        if threads is not None and threads < 1:
            raise ValueError(f"threads is at least 1, not {threads}")
        if awake_us is not None and awake_us < 0:
            raise ValueError(f"awake_us is at least 0, not {awake_us}")
        self.path, self._providers, self._threads = Path(path), tuple(providers), threads
        self._driver: Driver | None = None
        if not self.path.is_file():
            raise QccError([Diagnostic("Q400", f"no such file: `{path}`")])
        if is_program(self.path):
            message = f"`{path}` is a PyTorch program, and ONNX Runtime runs ONNX models"
            made = f"`qcc compile {path} -o {self.path.with_suffix(ONNX).name}` makes one of it"
            raise QccError([Diagnostic("Q384", message, help=made)])
        self.kernels: Path | None = find(self.path, kernels)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or runtime_threads()
        wait_awake(options, awake_us)
        self._loaded = loadable(self.kernels) if self.kernels else None
        if self._loaded:
            register(options, self._loaded, providers)
        with whole(self.path) as plain, fitting(plain, most) as fits:
            try:
                self._session = onnxruntime.InferenceSession(str(fits), options, providers=usable(providers))
            except Exception as error:  # the runtime raises a dozen unrelated classes
                message = f"ONNX Runtime cannot load the model: {first_line(error)}"
                raise QccError([Diagnostic("Q405", message)]) from error
        self.inputs: tuple[Value, ...] = tuple(map(_value, self._session.get_inputs()))
        self.outputs: tuple[Value, ...] = tuple(map(_value, self._session.get_outputs()))
        metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.provenance: dict[str, str] = {
            key: text for key, text in sorted(metadata.items()) if key.startswith(PREFIX)
        }

    @cached_property
    def caches(self) -> tuple[StoredCache, ...]:
        """The caches that hold codes, with how they are fed and read as floats."""
        return of_note(self.provenance.get(NOTE, ""))

    def in_floats(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """Inputs or outputs as they were before caches held codes."""
        held = {name: one.part_names(name) for one in self.caches for name in (one.past, one.present)}
        hidden = {part for name, names in held.items() for part in names.values() if part != name}
        shown = (value for value in values if value.name not in hidden)
        return tuple(replace(one, dtype="float32") if one.name in held else one for one in shown)

    def coded(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Feeds in which caches of floats are what this model takes: codes, where it keeps such."""
        return coded(self.caches, feeds)

    def decoded(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What a run returned, with caches as floats."""
        return decoded(self.caches, outputs)

    @cached_property
    def nodes(self) -> tuple[KernelNode, ...]:
        """The nodes that a kernel may run, each with whether one does; found out when first asked for.

        Raises:
            QccError: the model's file can no longer be read.
        """
        try:
            with whole(self.path) as plain:
                return kernel_nodes(plain, self._loaded, self._providers)
        except ModelError as error:
            raise QccError([Diagnostic(error.code, error.message, help=error.help)]) from error

    @property
    def size_bytes(self) -> int:
        """Of the model's file, and of the data files beside it.

        Raises:
            ModelError: the file can no longer be read.
        """
        with whole(self.path) as plain:
            return whole_size(plain, parse(plain).data_files)

    def report(self) -> str:
        """What runs where, as text: a summary, and a line a node that a kernel may run."""
        library = f"with {self.kernels.name}" if self.kernels else "without a kernel library"
        head = f"{self.path.name} {library}: {summary(self.nodes)}\n"
        return head + (listing(self.nodes) if self.nodes else "")

    def sample(
        self,
        seeds: int | Sequence[int] = 1,
        inputs: Mapping[str, object] | None = None,
        loop: Callable[..., object] | None = None,
    ) -> np.ndarray:
        """What the model's loop makes, ``[seed, ...]``, by the table beside the model.

        Args:
            seeds: how many, or which; each draws its own noise.
            inputs: what other inputs are fed instead of the table's values, an entry a seed.
            loop: instead of the table, a function of ``run`` and a seed that returns the sample.

        Raises:
            QccError: there is no table, a graph that it names is missing, or the model fails.
        """
        chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
        if loop is not None:
            return np.stack([np.asarray(loop(self.run, seed)) for seed in chosen])
        arrays = {name: np.asarray(one) for name, one in (inputs or {}).items()}
        if self._driver is None:
            self._driver = driver_of(self, self._other)
        try:
            return self._driver.samples(chosen, arrays)
        except ModelError as error:
            raise QccError([Diagnostic(error.code, error.message, help=error.help)]) from error

    def _other(self, path: Path) -> "Session":
        return Session(path, self.kernels or False, self._threads, self._providers)

    def run(self, feeds: Mapping[str, object]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Args:
            feeds: arrays by input name, or lists and numbers, which take the input's type.

        Raises:
            QccError: a feed is missing, unknown or unfit.
        """
        known = {value.name: value for value in self.inputs}
        for name in feeds:
            if name not in known:
                raise QccError([Diagnostic("Q406", f"the model has no input `{name}`", help=did_you_mean(name, known))])
        missing = [name for name in known if name not in feeds]
        if missing:
            raise QccError([Diagnostic("Q406", f"input `{missing[0]}` is not fed")])
        arrays = {name: _array(feed, known[name]) for name, feed in feeds.items()}
        names = [value.name for value in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, arrays), strict=True))
        except Exception as error:
            message = f"ONNX Runtime failed while running the model: {first_line(error)}"
            raise QccError([Diagnostic("Q406", message)]) from error


def runtime_version() -> str:
    """Of ONNX Runtime."""
    return str(onnxruntime.__version__)


def _value(one: onnxruntime.NodeArg) -> Value:
    outer, _, element = str(one.type).rpartition("(")
    element, kind = element.rstrip(")"), outer.partition("(")[0]
    container = CONTAINERS.get(kind, kind)
    return Value(one.name, tuple(one.shape or ()), DTYPES.get(element, element), container)


def _array(feed: object, value: Value) -> object:
    if isinstance(feed, np.ndarray) or value.dtype == "string" or value.container:
        return feed
    try:
        return np.asarray(feed, dtype=value.dtype)
    except (TypeError, ValueError) as error:
        raise QccError([Diagnostic("Q406", f"input `{value.name}` takes {value.dtype}: {error}")]) from error
