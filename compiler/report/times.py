"""What is told of a model's times: in the terminal, in the HTML report and as plain data."""

import math
from typing import Any

from qcc.compiler.console.terminal import Style
from qcc.compiler.measure.time_model import ModelTimes, Race, threads_text
from qcc.compiler.measure.timing import NOTICEABLE, Ratio, times_text
from qcc.compiler.report.text import milliseconds

STYLES: dict[str, Style] = {"slower": "red", "unsure": "yellow", "faster": "green", "same": "bold"}


def verdict(ratio: Ratio) -> str:
    """What a time over the input's says: ``slower`` or ``faster`` beyond noise, ``unsure`` if it but looks slower."""
    if ratio.slower or ratio.faster:
        return "slower" if ratio.slower else "faster"
    return "unsure" if ratio.median > NOTICEABLE else "same"


def latency_lines(times: ModelTimes) -> list[tuple[str, Style | None]]:
    """A line for each number of threads, slower ones in red, and one about what the races leave out."""
    lines: list[tuple[str, Style | None]] = []
    for race in times.races:
        lines.append((_line(race, times), STYLES[verdict(race.ratio(times.entrant))]))
    if times.predicted_s is not None:
        lines.append((f"predicted {milliseconds(times.predicted_s)}, {threads_text(times.threads)}", None))
    before, after = map(milliseconds, times.starts_s)
    return [*lines, (f"session start {before} -> {after}, decoding at load included; not in the times above", None)]


def ratio_words(race: Race, times: ModelTimes) -> str:
    """The written model's time over the input's, in words."""
    ratio = race.ratio(times.entrant)
    text = times_text(ratio.median, "the input", ratio.slower)
    return f"{text}, within noise" if verdict(ratio) == "unsure" else text


def latency_json(times: ModelTimes) -> dict[str, Any]:
    """As plain data."""
    return {
        "settings": [_race_json(race, times) for race in times.races],
        "session_start_s": list(times.starts_s),
        "predicted_s": times.predicted_s,
        "predicted_threads": times.threads,
    }


def _line(race: Race, times: ModelTimes) -> str:
    how = " with kernels" if times.with_kernels else ""
    text = f"{milliseconds(race.median_s(0))} -> {milliseconds(race.median_s(times.entrant))}{how}"
    text += f", {ratio_words(race, times)}; one sample, {race.threads_text}"
    return text + (f"; {milliseconds(race.median_s(1))} without" if times.with_kernels else "")


def _race_json(race: Race, times: ModelTimes) -> dict[str, Any]:
    ratio = race.ratio(times.entrant)
    return {
        "threads": race.threads,
        "before_s": race.median_s(0),
        "plain_s": race.median_s(1),
        "kernels_s": race.median_s(2) if times.with_kernels else None,
        "ratio": ratio.median,
        "ratio_low": ratio.low if math.isfinite(ratio.low) else None,
        "ratio_high": ratio.high if math.isfinite(ratio.high) else None,
        "verdict": verdict(ratio),
    }
