"""A result as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qcc.compiler.adapters.merge import MergedAdapter
from qcc.compiler.build.rewrite_row import RewriteRow
from qcc.compiler.judge.told import scores_json
from qcc.compiler.report.result import Allocation, LayerRow, Result, average_bits
from qcc.compiler.report.times import latency_json
from qcc.compiler.verify.outputs import OutputCheck, Verification
from qcc.compiler.work.taken import Taken


def as_json(result: Result) -> dict[str, Any]:
    """The result as plain data; what is infinite, as the SQNR of equal outputs, is null."""
    return {
        "model": str(result.source),
        "output": str(result.output),
        "lock": str(result.lock),
        "data": str(result.data) if result.data else None,
        "report": str(result.report),
        "kernels": None if result.kernels is None else str(result.kernels),
        "cache": None if result.cache is None else str(result.cache),
        "written": result.written,
        "passed": result.passed,
        "input_bytes": result.input_bytes,
        "reach": None if result.reach is None else asdict(result.reach),
        "output_bytes": result.output_bytes,
        "packed": None if result.packed is None else str(result.packed),
        "packed_bytes": result.packed_bytes if result.packed else None,
        "bits": average_bits(result.layers),
        "layers": [_plain(row) for row in result.layers],
        "edits": list(result.edits),
        "adapters": [_adapter_json(one) for one in result.adapters],
        "loop": None if result.loop is None else dict(result.loop.facts),
        "rewrites": [_rewrite_json(row) for row in result.rewrites],
        "notes": list(result.notes),
        "allocation": None if result.allocation is None else _plain(result.allocation),
        "verification": verification_json(result.verification),
        "latency": None if result.times is None else latency_json(result.times),
        "costs": costs_json(result.costs),
        "seconds": result.seconds,
    }


def costs_json(costs: Sequence[Taken]) -> dict[str, dict[str, object]]:
    """What is taken of the rows that the policy asked for, by name."""
    return {one.row: {"before": one.before, "after": one.after, "unit": one.unit, "by": one.note} for one in costs}


def verification_json(verification: Verification) -> dict[str, Any]:
    """The verification as plain data."""
    bounds = [
        {"bound": one.bound.text, "value": _finite(one.value), "passed": one.passed, "excuse": one.excuse}
        for one in verification.bounds
    ]
    return {
        "outputs": [_output_json(one) for one in verification.outputs],
        "kernel_outputs": [_output_json(one) for one in verification.kernel_outputs],
        "bounds": bounds,
        "scores": [_finite(one) for one in scores_json(verification)],
        "samples": verification.samples,
        "origin": verification.origin,
        "stand_in": verification.stand_in or None,
        "token_by_token": None if verification.driven is None else dict(verification.driven.facts),
        "notes": list(verification.notes),
        "losers": [asdict(one) for one in verification.losers],
    }


def _rewrite_json(row: RewriteRow) -> dict[str, object]:
    edits = [
        {"subject": one.subject, "text": one.text, "refused": one.refused, "layers": list(one.layers)}
        for one in row.edits
    ]
    return {
        "pass": row.action,
        "treated": len(row.treated),
        "refused": len(row.refused),
        "relative_error": row.error,
        "bound": row.bound,
        "changed": row.changed,
        "seconds": row.seconds,
        "edits": edits,
    }


def _adapter_json(one: MergedAdapter) -> dict[str, object]:
    changes = [{**asdict(change), "share": _finite(change.share)} for change in one.changes]
    return {"file": one.source.name, "scale": one.source.scale, "changes": changes}


def _plain(data: LayerRow | Allocation) -> dict[str, object]:
    return {name: _finite(value) for name, value in asdict(data).items()}


def _output_json(one: OutputCheck) -> dict[str, object]:
    """With what metrics say of it side by side."""
    found: dict[str, object] = {
        "output": one.output,
        **one.found.values,
        "changed": one.changed,
        "whole": one.whole and one.whole.values,
    }
    found |= {"notes": one.notes, "kept": one.kept and one.kept.values, "unverified": one.unverified}
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
