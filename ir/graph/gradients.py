"""Gradients of a graph's values, and weights that learn by them: what is seen of the framework that has them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from qcc.ir.encoding.encoded import Encoded
from qcc.ir.graph.ops import Array, Feeds


class Gradients(Protocol):
    """The way from some constants of a graph to values of it."""

    reach: tuple[str, ...]
    """The constants by which there are gradients; the others asked for have none."""
    outputs: tuple[str, ...]
    """The values asked for that they change."""

    def check(self, feeds: Feeds) -> None:
        """Hold the outputs, as they are differentiated, to those of the graph.

        Raises:
            ModelError: they are apart, ``Q646``.
        """
        ...

    def known(self, feeds: Feeds) -> dict[str, Array]:
        """What the graph makes of feeds, the outputs among it; `pulled` takes it."""
        ...

    def pulled(self, known: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """``d sum(weights * outputs) / d constant``, by constant.

        Args:
            known: what `known` gave for the feeds.
            weights: by output, in its shape.
        """
        ...


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


class LearningWindow(Protocol):
    """Weights that learn together."""

    def learn(
        self, lessons: Sequence[Lesson], steps: int, tick: Callable[[], None]
    ) -> tuple[dict[str, Encoded], float, float]:
        """What the weights become by name, and what is lost on samples held out before and after."""
        ...
