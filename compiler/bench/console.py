"""A benchmark as tables and as plain data."""

import math
from dataclasses import asdict
from typing import Any

from qcc.codegen.target.machine import machine
from qcc.compiler.bench.bench import Bench, Closeness, Contender, Setting
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.measure.timing import SLOWER, times_text
from qcc.compiler.metrics.texts import ratio_text
from qcc.compiler.report.text import size_text
from qcc.compiler.runtime.session import runtime_version

MS = 1e3
NONE = "-"
MEMORY = ("session", "after a run", "at most", "session over file")
PAIRED = (
    "ratios are paired: the median, over rounds in which all models take turns, of a model's time over the first's",
    "slower: by more than 2 %, and in the whole of the interval in which the median lies 99 times in 100",
)


def write_report(result: Bench) -> None:
    """Print the models, and a table of times."""
    terminal.write_line(f"{place_text()}; inputs: {result.data}\n")
    terminal.write_table(_models(result))
    terminal.write_line()
    terminal.write_table(_times(result), marks={SLOWER: "red"})
    if result.kept:
        terminal.write_line()
        terminal.write_table(_memory(result))
    if len(result.entries) > 1:
        terminal.write_line()
        for line in PAIRED:
            terminal.write_text(line)


def place_text() -> str:
    """The machine and the runtime."""
    here = machine()
    return f"{here.processor}, {here.cores} core{'' if here.cores == 1 else 's'}, ONNX Runtime {runtime_version()}"


def as_json(result: Bench) -> dict[str, Any]:
    """The result as plain data; what is infinite, as the SQNR of equal outputs, is null."""
    return {
        "machine": {**asdict(machine()), "onnxruntime": runtime_version()},
        "inputs": result.data,
        "models": [_model_json(entry, close) for entry, close in zip(result.entries, result.closeness, strict=True)],
        "memory": [asdict(one) if one else None for one in result.kept],
        "settings": [_setting_json(setting, len(result.entries)) for setting in result.settings],
    }


def ms_text(seconds: float) -> str:
    """A time in milliseconds, in three digits."""
    amount = seconds * MS
    return f"{amount:.{max(0, 2 - math.floor(math.log10(amount))) if amount > 0 else 0}f}"


def _model_json(entry: Contender, close: Closeness) -> dict[str, Any]:
    return {
        "model": str(entry.model),
        "kernels": str(entry.library) if entry.library else None,
        "label": entry.label,
        "bytes": entry.size_bytes,
        "kernels_bytes": entry.library_bytes,
        "kernel_nodes": sum(node.by_kernel for node in entry.nodes),
        "nodes": [asdict(node) for node in entry.nodes],
        "sqnr_db": close.sqnr if math.isfinite(close.sqnr) else None,
        "relative_error": close.relative_error if math.isfinite(close.relative_error) else None,
    }


def _setting_json(setting: Setting, entries: int) -> dict[str, Any]:
    times = []
    for at in range(entries):
        low, middle, high = (seconds * MS for seconds in setting.quartiles(at))
        ratio = setting.ratio(at)
        shown = {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high, "slower": ratio.slower}
        times.append({"median_ms": middle, "q1_ms": low, "q3_ms": high, **shown})
    return {
        "threads": setting.threads,
        "batch": setting.batch,
        "shapes": {name: list(shape) for name, shape in setting.shapes.items()},
        "rounds": setting.seconds.shape[1],
        "times": times,
    }


def _models(result: Bench) -> Table:
    titles = ("model", "size", "library", "kernels", "SQNR", "largest error")
    columns = tuple(Column(title, title not in ("model", "kernels"), cut=title == "model") for title in titles)
    rows = []
    for at, (entry, close) in enumerate(zip(result.entries, result.closeness, strict=True)):
        library = size_text(entry.library_bytes) if entry.library else NONE
        taken = sum(node.by_kernel for node in entry.nodes)
        nodes = f"{taken} of {len(entry.nodes)} nodes" if entry.nodes else NONE
        found = (_sqnr(close.sqnr), ratio_text(close.relative_error)) if at else ("reference", NONE)
        rows.append((entry.label, size_text(entry.size_bytes), library, nodes, *found))
    return Table(columns, tuple(rows))


def _memory(result: Bench) -> Table:
    """What sessions keep, beside the size of their files."""
    columns = (Column("model", cut=True), *(Column(title, True) for title in MEMORY))
    rows = []
    for entry, kept in zip(result.entries, result.kept, strict=True):
        sizes = map(size_text, (kept.made, kept.ran, kept.most)) if kept else (NONE,) * 3
        over = f"{kept.made / entry.size_bytes:.2f}x" if kept else NONE
        rows.append((entry.label, *sizes, over))
    return Table(columns, tuple(rows))


def _sqnr(sqnr: float) -> str:
    return "equal" if sqnr == math.inf else f"{sqnr:.1f} dB" if math.isfinite(sqnr) else "none"


def _times(result: Bench) -> Table:
    titles = ("threads", "batch", "model", "median ms", "quartiles ms", "against the first")
    columns = tuple(
        Column(title, title not in ("model", titles[-1]), cut=title == "model", spare=int(title == "quartiles ms"))
        for title in titles
    )
    rows: list[tuple[str, ...]] = []
    for setting in result.settings:
        for at, entry in enumerate(result.entries):
            low, middle, high = map(ms_text, setting.quartiles(at))
            head = (str(setting.threads), str(setting.batch)) if at == 0 else ("", "")
            ratio = setting.ratio(at)
            words = times_text(ratio.median, "", ratio.slower) if at else NONE
            rows.append((*head, entry.label, middle, f"{low} to {high}", words))
    return Table(columns, tuple(rows))
