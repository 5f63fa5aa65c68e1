"""Windows of a graph whose weights learn together: what whoever asks for that sees of the framework that does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from qcc.ir.encoding.encoded import Encoded
from qcc.ir.graph.ops import Array, Feeds


@dataclass(frozen=True)
class Lesson:
    """Some samples at the borders of a window.

    Args:
        now: what the window reads in the model as it is compressed by then.
        floats: what it reads in the float model.
        wanted: what the float model makes ``[..., channel]``.
        held: they judge, and nothing learns of them.
        sight: which rows of what is made count; all do if it is None.
    """

    now: Feeds
    floats: Feeds
    wanted: Array
    held: bool
    sight: Array | None = None


class Window(Protocol):
    """Weights that learn together."""

    def learn(
        self, lessons: Sequence[Lesson], steps: int, tick: Callable[[], None]
    ) -> tuple[dict[str, Encoded], float, float]:
        """What the weights become by name, and what is lost on samples held out before and after."""
        ...
