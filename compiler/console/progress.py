"""Showing long work at a terminal: a line a phase, on stderr; elsewhere nothing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from qcc.compiler.console.phases import WARNING, Progress
from qcc.compiler.console.terminal import colored, is_terminal
from qcc.dsl.diagnostics.excerpt import escape

PHASES = {
    "load": "reading the model",
    "structure": "changing the structure",
    "choose": "planning",
    "reference": "running the original",
    "statistics": "collecting statistics",
    "rewrite": "rewriting the graph",
    "measure": "measuring candidates",
    "allocate": "choosing formats",
    "raise": "raising the opset",
    "encode": "encoding weights",
    "kernels": "building kernels",
    "verify": "verifying the file",
    "time": "timing the file",
    "locate": "finding what loses most",
}
"""What the driver's phases are called to the user; one that is missing here goes by its own name."""
LONGEST_DETAIL = 32


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A callback for the driver: phase, how much is done, of how much, and on what."""
    if quiet or not is_terminal(sys.stderr):
        yield lambda _phase, _done, _total, _detail: None
        return
    with _bars() as update:
        yield update


@contextmanager
def _bars() -> Iterator[Progress]:
    import rich.console  # only a terminal needs it
    import rich.progress as parts
    from rich.table import Column

    console = rich.console.Console(file=sys.stderr, no_color=not colored(sys.stderr))
    bars = parts.Progress(
        parts.SpinnerColumn(finished_text="✓" if console.encoding.startswith("utf") else "*"),
        parts.TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        parts.BarColumn(24),
        parts.TextColumn("{task.fields[count]}", justify="right"),
        parts.TimeElapsedColumn(),
        parts.TextColumn("{task.fields[detail]}", style="dim", markup=False, table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
    )
    tasks: dict[str, parts.TaskID] = {}
    current = ""

    def update(phase: str, done: int, total: int, detail: str) -> None:
        nonlocal current
        if phase == WARNING:
            console.print(f"warning: {escape(detail)}", style="yellow", markup=False, highlight=False)
            return
        if phase != current and current:
            known = bars.tasks[tasks[current]].total or 1
            bars.update(tasks[current], total=known, completed=known, detail="")
        current = phase
        if phase not in tasks:
            tasks[phase] = bars.add_task(PHASES.get(phase, phase), total=None, count="", detail="")
        if total:
            count = f"{done}/{total}"
            bars.update(tasks[phase], total=total, completed=done, count=count, detail=_shortened(escape(detail)))

    with bars:
        yield update


def _shortened(text: str) -> str:
    """A long name by its end, which tells more than its beginning."""
    return text if len(text) <= LONGEST_DETAIL else "…" + text[1 - LONGEST_DETAIL :]
