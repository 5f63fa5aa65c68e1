"""What a checkpoint holds, for people and as JSON."""

from dataclasses import asdict
from pathlib import Path

from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.ir.checkpoint.held import Held, WeightFile

COLUMNS = (
    Column("stored as"),
    *(Column(name, right=True) for name in ("tensors", "params", "bytes", "bits")),
    Column("in a policy", spare=1),
)
NO_GRAPH = "weights without what is computed with them: qcc compiles the ONNX export of the original model"


def write_checkpoint(path: Path, found: WeightFile, format: str) -> int:
    """Tell what it holds; the exit status."""
    if format == "json":
        tensors = [asdict(one) for one in found.tensors]
        terminal.write_json({"checkpoint": str(path), "kind": found.kind, "tensors": tensors, "diagnostics": []})
        return 0
    size = path.stat().st_size
    terminal.write(terminal.pairs([("checkpoint", f"{path}, {size:,} bytes"), ("format", found.kind)]))
    terminal.write_line()
    terminal.write_table(_table(found))
    terminal.write_line(f"\n{NO_GRAPH}")
    return 0


def _table(found: WeightFile) -> Table:
    """A row each way to store."""
    ways: dict[str, list[Held]] = {}
    for one in found.tensors:
        ways.setdefault(one.stored, []).append(one)
    return Table(COLUMNS, tuple(_row(stored, members) for stored, members in ways.items()))


def _row(stored: str, members: list[Held]) -> tuple[str, ...]:
    params, size = sum(one.params for one in members), sum(one.size_bytes for one in members)
    bits = f"{8 * size / params:.2f}" if params and size else "-"
    first = members[0]
    return stored, f"{len(members):,}", f"{params:,}", f"{size:,}", bits, first.ours or f"none: {first.why}"
