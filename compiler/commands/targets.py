"""List the processors that kernels can be built for, and what this machine is.

A library that is built for a target runs where its instructions are; elsewhere the model's own functions run. With
--measure it also measures what one core of this machine can do at most, which takes some seconds; the result is kept
and shown from then on.
"""

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from qcc.codegen.cpu.ceilings.ceilings import Ceiling, CeilingError, Ceilings, known, measure
from qcc.codegen.target.machine import Machine, machine
from qcc.codegen.target.target import TARGETS, CpuTarget, TargetError, cpu_flags, here, native
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.progress import progress
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError

TVM = "`pip install --force-reinstall qcc` brings TVM in the version that qcc needs"


@dataclass(frozen=True)
class TargetFacts:
    """What is told: this machine, its native target (or why there is none), and its ceilings, if they are known."""

    here: Machine
    target: CpuTarget | None
    reason: str
    ceilings: Ceilings | None


EXAMPLES = """examples:
  qcc targets              processors that kernels can be built for
  qcc targets --measure    what one core can do at most, measured
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--measure", action="store_true", help="measure what one core can do at most")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """List."""
    ceilings = _measured(args.format) if args.measure else known()
    facts = TargetFacts(machine(), *_native(), ceilings)
    if args.format == "json":
        terminal.write_json(_json(facts))
    else:
        _write(facts)
    return 0


def _measured(format: str) -> Ceilings:
    try:
        with progress(format != "text") as update:
            return measure(lambda done, total, name: update("measuring ceilings", done, total, name))
    except CeilingError as error:
        raise QccError([Diagnostic("Q460", str(error), help=TVM)]) from error
    except TargetError as error:
        raise QccError([Diagnostic("Q460", str(error))]) from error


def _native() -> tuple[CpuTarget | None, str]:
    try:
        return native(), ""
    except TargetError as error:
        return None, str(error)


def _obstacle(target: CpuTarget) -> str:
    """Why kernels for a target would not run here; empty if they would."""
    if target.architecture != here():
        return f"is {target.architecture}"
    missing = [feature for feature in target.features if feature not in cpu_flags()]
    return f"lacks {', '.join(missing)}" if missing else ""


def _json(facts: TargetFacts) -> dict[str, Any]:
    targets = []
    for target in TARGETS.values():
        obstacle = _obstacle(target)
        entry = {"name": target.name, "mcpu": target.mcpu, "triple": target.triple, "features": list(target.features)}
        targets.append({**entry, "runs_here": not obstacle, "obstacle": obstacle or None})
    return {
        "targets": targets,
        "native": facts.target.name if facts.target else None,
        "machine": asdict(facts.here),
        "ceilings": asdict(facts.ceilings) if facts.ceilings else None,
        "diagnostics": [],
    }


def _write(facts: TargetFacts) -> None:
    rows = []
    for target in TARGETS.values():
        obstacle = _obstacle(target)
        here = f"no, {_short(obstacle)}" if obstacle else "yes"
        rows.append((target.name, target.mcpu, here, " ".join(target.features) or "-"))
    columns = tuple(map(Column, ("target", "LLVM's processor", "runs here", "instructions")))
    terminal.write_table(Table(columns, tuple(rows)))
    terminal.write_line()
    terminal.write(terminal.pairs(_machine(facts)))
    if facts.ceilings:
        terminal.write_line(f"\none core at most, measured on {facts.ceilings.measured}:")
        columns = (Column("ceiling"), Column("", right=True), Column("unit"))
        terminal.write_table(Table(columns, tuple(map(_ceiling, facts.ceilings.ceilings))))


def _short(obstacle: str) -> str:
    """An obstacle, of a list its first."""
    first, *rest = obstacle.split(", ")
    return f"{first} and {len(rest)} more" if rest else first


def _machine(facts: TargetFacts) -> list[tuple[str, str]]:
    here = facts.here
    caches = [
        f"{_binary(size)} L{level}"
        for level, size in enumerate((here.l1_bytes, here.l2_bytes, here.l3_bytes), 1)
        if size
    ]
    return [
        ("cpu(native)", facts.target.name if facts.target else f"none: {facts.reason}"),
        ("processor", f"{here.processor}, {here.cores} core{'' if here.cores == 1 else 's'}"),
        ("caches", ", ".join(caches) or "unknown"),
    ]


def _binary(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):g} MiB" if size_bytes >= 1 << 20 else f"{size_bytes / (1 << 10):g} KiB"


def _ceiling(one: Ceiling) -> tuple[str, str, str]:
    return one.name, f"{one.value:,.0f}", one.unit
