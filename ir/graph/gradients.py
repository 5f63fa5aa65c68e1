"""Gradients of a graph's values by its constants: what whoever asks for them sees of the framework that has them."""

from collections.abc import Mapping
from typing import Protocol

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
