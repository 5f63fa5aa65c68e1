"""List what can be compiled for, the processors that kernels can be built for, and what this machine is.

A library that is built for a processor runs where its instructions are; elsewhere the model's own functions run. With
--measure it also measures what one core of this machine can do at most, which takes some seconds; the result is kept
and shown from then on.
"""

import argparse
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from qcc.codegen.target.ceiling import Ceiling, CeilingError, Ceilings
from qcc.codegen.target.errors import TargetError
from qcc.codegen.target.find import targets
from qcc.codegen.target.machine import Machine, machine
from qcc.codegen.target.target import NATIVE, AnyTarget, Processor
from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.progress import progress
from qcc.dsl.diagnostics.diagnostic import Diagnostic
from qcc.dsl.diagnostics.report import QccError

NOISY = "the machine was busy, and the best may be too low where the usual call is far below it; measure again for"
TVM = "`pip install 'qcc[kernels]'` brings TVM in the version that qcc needs"


@dataclass(frozen=True)
class TargetFacts:
    """What is told of a target: its processor that this machine is, or why it is none, and ceilings that are known."""

    target: AnyTarget
    native: Processor | None
    reason: str
    ceilings: Ceilings | None


EXAMPLES = """examples:
  qcc targets              what can be compiled for, and processors that kernels can be built for
  qcc targets --measure    what one core can do at most, measured
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--measure", action="store_true", help="measure what one core can do at most")
    add("--format", choices=("text", "json"), default="text", help="how to print (default: text)")


def run(args: argparse.Namespace) -> int:
    """List."""
    measured = _measure(args.format) if args.measure else {}  # told even if it cannot be kept
    facts = [TargetFacts(one, *_native(one), measured.get(one.name) or one.ceilings()) for one in targets().values()]
    if args.format == "json":
        terminal.write_json({"targets": list(map(_json, facts)), "machine": asdict(machine()), "diagnostics": []})
    else:
        _write(facts, machine())
    return 0


def _measure(format: str) -> dict[str, Ceilings]:
    """Measure the ceilings of all targets that have some."""
    able = [one for one in targets().values() if one.has_ceilings]
    try:
        with progress(format != "text") as update:
            tick = partial(update, "measuring ceilings")
            return {one.name: one.measure_ceilings(tick) for one in able}
    except CeilingError as error:
        raise QccError([Diagnostic("Q460", str(error), help=TVM)]) from error
    except TargetError as error:
        raise QccError([Diagnostic("Q460", str(error))]) from error


def _native(target: AnyTarget) -> tuple[Processor | None, str]:
    if not target.processors:
        return None, ""
    try:
        return target.native(), ""
    except TargetError as error:
        return None, str(error)


def _json(facts: TargetFacts) -> dict[str, Any]:
    target = facts.target
    return {
        "name": target.name,
        "summary": target.summary,
        "providers": list(target.providers),
        "processors": list(map(_processor_json, target.processors)),
        "native": facts.native.name if facts.native else None,
        "ceilings": asdict(facts.ceilings) if facts.ceilings else None,
    }


def _processor_json(one: Processor) -> dict[str, Any]:
    return {"name": one.name, **one.facts, "runs_here": not one.obstacle, "obstacle": one.obstacle or None}


def _write(facts: list[TargetFacts], here: Machine) -> None:
    rows = tuple((one.target.name, ", ".join(one.target.providers), one.target.summary) for one in facts)
    terminal.write_table(Table(tuple(map(Column, ("target", "runs in", ""))), rows))
    for one in facts:
        if one.target.processors:
            terminal.write_line()
            _write_processors(one.target)
    terminal.write_line()
    terminal.write(terminal.pairs(_machine(facts, here)))
    for one in facts:
        if one.ceilings:
            terminal.write_line(f"\none core at most, measured on {one.ceilings.measured}:")
            columns = (Column("ceiling"), Column("best", right=True), Column("usual", right=True), Column("unit"))
            terminal.write_table(Table(columns, tuple(map(_ceiling, one.ceilings.ceilings))))
            if noisy := [ceiling.name for ceiling in one.ceilings.ceilings if ceiling.noisy]:
                terminal.write_text(f"{NOISY}: {', '.join(noisy)}")


def _write_processors(target: AnyTarget) -> None:
    columns = (f"{target.name}(...)", "runs here", *target.headings.values())
    rows = [_row(target, one) for one in target.processors]
    terminal.write_table(Table(tuple(map(Column, columns)), tuple(rows)))


def _row(target: AnyTarget, one: Processor) -> tuple[str, ...]:
    facts = (one.facts[key] for key in target.headings)
    told = (fact if isinstance(fact, str) else " ".join(fact) or "-" for fact in facts)
    return one.name, f"no, {_short(one.obstacle)}" if one.obstacle else "yes", *told


def _short(obstacle: str) -> str:
    """An obstacle, of a list its first."""
    first, *rest = obstacle.split(", ")
    return f"{first} and {len(rest)} more" if rest else first


def _machine(facts: list[TargetFacts], here: Machine) -> list[tuple[str, str]]:
    caches = [
        f"{_binary(size)} L{level}"
        for level, size in enumerate((here.l1_bytes, here.l2_bytes, here.l3_bytes), 1)
        if size
    ]
    return [
        *((f"{one.target.name}({NATIVE})", _native_text(one)) for one in facts if one.target.processors),
        ("processor", f"{here.processor}, {here.cores} core{'' if here.cores == 1 else 's'}"),
        ("caches", ", ".join(caches) or "unknown"),
    ]


def _native_text(facts: TargetFacts) -> str:
    return facts.native.name if facts.native else f"none: {facts.reason}"


def _binary(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):g} MiB" if size_bytes >= 1 << 20 else f"{size_bytes / (1 << 10):g} KiB"


def _ceiling(one: Ceiling) -> tuple[str, str, str, str]:
    best, usual = (f"{rate:,.{int(rate < 10)}f}" for rate in (one.value, one.usual))
    return one.name, best, usual, one.unit
