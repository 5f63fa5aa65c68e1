"""Writing what goes beside a model, and giving everything its final name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qcc.compiler.adapters.prefix import is_cache, write_cache
from qcc.compiler.calibrate.samples import Samples
from qcc.compiler.files.check_outputs import OutputFiles, check_outputs
from qcc.compiler.files.inputs import Inputs
from qcc.compiler.files.kernel_library import kernels_beside
from qcc.compiler.files.publish import Staged, publish, same_file
from qcc.compiler.files.staging import failed_path
from qcc.compiler.report.lock import lock_text
from qcc.compiler.report.page.html import render_html
from qcc.compiler.report.result import Result
from qcc.compiler.sampler.table import earlier_files
from qcc.dsl.policy.policy import Policy
from qcc.ir.errors import ModelError
from qcc.ir.model.model import Written
from qcc.ir.model.whole_files import place
from qcc.ir.open_file import load_object
from qcc.ir.transport.container import is_packed, write_packed


def publish_result(
    result: Result, policy: Policy, data: Samples, inputs: Inputs, staged: Path, written: Written
) -> None:
    """Publish a model with its data, library, lock and report, all made where the model was staged.

    Raises:
        ModelError: an input changed meanwhile, or the system refuses.
    """
    final, made = OutputFiles.of(result.output), OutputFiles.of(staged)
    caches = [one.cache for one in result.adapters if one.cache is not None]
    for one in caches:
        write_cache(made.cache, one)
    made.lock.write_text(lock_text(result, policy, data, inputs, staged, written), encoding="utf-8")
    made.report.write_text(render_html(result), encoding="utf-8")
    inputs.check()
    files = [Staged(made.lock, final.lock), Staged(made.report, final.report), Staged(staged, final.model)]
    if result.kernels:
        files.insert(0, Staged(made.kernels, final.kernels))
    if result.packed:
        files.insert(0, Staged(made.packed, final.packed))
    beside = result.loop.files if result.loop else ()
    files[0:0] = [Staged(staged.with_name(path.name), path) for path in beside]
    if caches:
        files.insert(0, Staged(made.cache, final.cache))
    if written.data is not None and result.data is not None and not same_file(result.data, written.data_sha256):
        check_outputs([result.data], (file.path for file in inputs.data))
        files.insert(0, Staged(written.data, result.data))
    stale = [] if result.kernels else [final.kernels]  # of an earlier run
    if not result.packed and is_packed(final.packed):
        stale.append(final.packed)
    stale += [path for path in earlier_files(final.model) if path not in beside]
    if not caches and is_cache(final.cache):
        stale.append(final.cache)
    publish(files, staged.parent, stale)


def packed(result: Result, staged: Path, written: Written) -> Result:
    """The result with the model for transport, made where the model was staged.

    Raises:
        ModelError: the system refuses.
    """
    path = OutputFiles.of(staged).packed
    try:
        size = write_packed(written.path, written.data, path)
    except OSError as error:
        raise ModelError("Q404", f"cannot write `{path.name}`: {error.strerror or error}") from error
    return replace(result, packed=OutputFiles.of(result.output).packed, packed_bytes=size)


def publish_failed(
    result: Result, policy: Policy, data: Samples, inputs: Inputs, staged: Path, copy: Callable[[Path, Path], Written]
) -> Result:
    """Publish a model whose verification failed, under a name that tells it; files of an earlier run stay.

    Args:
        result: of the compilation.
        policy: of it.
        data: of it.
        inputs: of it.
        staged: where the model was written.
        copy: makes a copy, at a path, of a model that was written.

    Returns:
        The result with the names that its files have.

    Raises:
        ModelError: an input changed meanwhile, or the system refuses.
    """
    path = failed_path(result.output)
    there, final = staged.with_name(path.name), OutputFiles.of(path)
    written = copy(there, staged)  # its data gets another name, too
    if result.kernels:
        place(kernels_beside(staged), kernels_beside(there))
    kept = replace(
        result,
        output=final.model,
        lock=final.lock,
        report=final.report,
        kernels=final.kernels if result.kernels else None,
        data=path.with_name(written.data.name) if written.data else None,
        written=True,
        loop=None if result.loop is None else replace(result.loop, files=()),  # they are of the other name
    )
    publish_result(kept, policy, data, inputs, there, written)
    return kept


def with_object(result: Result, kept: bool) -> Result:
    """The result for a model in memory: what was written is read again.

    Args:
        result: whose files are there.
        kept: they stay; else they are about to go, and the result says so.
    """
    model = load_object(result.output) if result.written and result.passed else None
    return replace(result, model=model, written=result.written and kept)
