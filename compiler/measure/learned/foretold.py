"""Timings that are foretold where that can be done, and taken where it cannot."""

from collections.abc import Mapping
from functools import partial

from qcc.compiler.measure.learned.timed import LearnedTimes, TimedLayer
from qcc.compiler.measure.time_forms import FLOAT, Case, Timings, named_form
from qcc.ir.encoding.algebra import Encoding
from qcc.ir.graph.form import Form
from qcc.passes.contract.activations import Activations


class ForetoldTimings(Timings):
    """Times by what was learned; of a layer that lies outside of that, in any of its forms, by the clock.

    Args:
        timings: of the clock.
        learned: on the same machine for the same target.
    """

    def __init__(self, timings: Timings, learned: LearnedTimes) -> None:
        self._timings, self._learned, self.threads = timings, learned, timings.threads
        self.foretold: set[Case] = set()
        self.outside: set[Case] = set()

    def seconds(
        self, case: Case, encoding: Encoding | None, forms: tuple[Form, ...], how: Activations | None = None
    ) -> Mapping[Form | str, float]:
        """See `Timings.seconds`."""
        of = partial(TimedLayer.of, case, threads=self.threads)
        names: dict[Form | str, TimedLayer] = {FLOAT: of(None, FLOAT)}
        plain = {form for form in forms if not form.packed and how is None}
        names |= {form: of(encoding, named_form(form, how)) for form in forms if form not in plain}
        if not all(self._learned.knows(one) for one in names.values()):
            self.outside.add(case)
            return self._timings.seconds(case, encoding, forms, how)
        self.foretold.add(case)
        found = dict(zip(names, map(float, self._learned.seconds(list(names.values()))), strict=True))
        return found | dict.fromkeys(plain, found[FLOAT])  # floats when a session has started


def told_of_times(timings: object) -> str:
    """What was foretold, and what lay outside of what was learned; nothing of times that were all taken."""
    if not isinstance(timings, ForetoldTimings):
        return ""
    text = f"times of {len(timings.foretold)} shapes of layers are foretold by what `qcc bench --learn` took"
    outside = len(timings.outside - timings.foretold)
    return f"{text}; {outside} lie outside of that, and were measured" if outside else text
