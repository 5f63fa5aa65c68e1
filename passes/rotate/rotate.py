"""Rotation of channels, so that no weight and no activation stands out."""

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group
from qcc.ir.graph.graph import Graph
from qcc.ir.graph.ops import Array, Kind
from qcc.passes.contract.contract import Between, Context, Edit, Rewrite, Site
from qcc.passes.rotate.hadamard_matrix import flat_orthogonal

FEWEST = 16  # channels: an outlier among fewer has few to share itself out to
GAIN_ADVICE = "; if that is a norm's gain, `fold_norm = on` takes it away"


class Rotate(Rewrite):
    """Turn the channels between layers, in all that write and read them, by an orthogonal matrix."""

    property: ClassVar[str] = "rotate"
    after: ClassVar[tuple[str, ...]] = ("clean", "fold_norm")

    @abstractmethod
    def matrices(self, group: Group) -> Array:
        """Orthogonal matrices ``[*contexts, size, size]`` for a group; if it keeps the mean, ones stay ones."""

    def sites(self, graph: Graph, targets: Sequence[str]) -> Sequence[Site]:
        """The groups of channels that targets have as inputs."""
        return [_site(graph, group) for group in _groups(Axes.of(graph), targets)]

    def rewrite(self, graph: Graph, targets: Sequence[str], context: Context) -> list[Edit]:
        """Rotate."""
        axes, edits = Axes.of(graph), []
        for group in _groups(axes, targets):
            site = _site(graph, group)
            if site.refused:
                edits.append(site.refusal)
            elif context.takes(site.subject):
                context.progress(site.subject)
                axes.apply(group, self.matrices(group))
                edits.append(Edit(site.subject, _text(group), layers=site.layers))
        return edits


@dataclass(frozen=True)
class Hadamard(Rotate):
    """Rotate channels by a Hadamard matrix with random signs: every channel becomes an even mixture of all.

    Rewrite:
        x [n], W1 [n, in], W2 [out, n]  -->  R x, R W1, W2 R'

    Acts on whole residual streams and, for each head, between the values and the output of attention. Sizes that are
    no power of two are a Kronecker product of Paley's matrices, or of a flat orthogonal one for what is left. Where a
    layer norm takes the mean of the channels, the rotation is reflected so that the mean stays.

    Refused where the channels pass anything that is not linear: an activation, a rotary embedding, a norm that has a
    gain of its own (run `fold_norm` first), an output of the model. Applied twice it rotates twice.

    Args:
        seed: of the signs; they depend on it and on the group's name alone.

    Source: QuIP#, Tseng et al. 2024 (arXiv:2402.04396), section 3; QuaRot, Ashkboos et al. 2024 (arXiv:2404.00456),
    section 4; norms and rotations commute by SliceGPT, Ashkboos et al. 2024 (arXiv:2401.15024), section 3.
    """

    seed: Annotated[int, Between(0, 2**32 - 1)] = 0

    def matrices(self, group: Group) -> Array:
        """Randomised Hadamard matrices."""
        draw = np.random.default_rng([self.seed, zlib.crc32(group.name.encode())])
        signs = draw.choice([-1.0, 1.0], (*group.contexts, 1, group.size))
        turned = flat_orthogonal(group.size) * signs
        return keeping_ones(turned) if group.keeps_mean else turned


def keeping_ones(matrices: Array) -> Array:
    """Orthogonal matrices ``[..., n, n]``, each followed by the reflection that takes what ones became back to ones."""
    size = matrices.shape[-1]
    axis = matrices.sum(-1, keepdims=True) / np.sqrt(size) - 1 / np.sqrt(size)
    length = (axis**2).sum(-2, keepdims=True)
    inverse = np.divide(2, length, out=np.zeros_like(length), where=length > np.finfo(np.float64).eps)
    return np.asarray(matrices - inverse * axis * (axis.swapaxes(-1, -2) @ matrices))


def _groups(axes: Axes, targets: Sequence[str]) -> list[Group]:
    wanted = set(targets)
    groups = axes.groups(Action.ROTATE)
    return [group for group in groups if group.size >= FEWEST and wanted & set(group.readers)]


def _site(graph: Graph, group: Group) -> Site:
    return Site(group.name, group.weights, group.fixed + _advice(graph, group) if group.fixed else "")


def _advice(graph: Graph, group: Group) -> str:
    """What to do where it may be a norm's gain that stands in the way."""
    for op in graph.ops():
        if f"`{op.name}`" not in group.fixed:
            continue
        gained = op.kind is Kind.NORM and len(op.inputs) > 1
        scaled = op.function == "mul" and any(graph.constant(name) is not None for name in op.inputs)
        return GAIN_ADVICE if gained or scaled else ""
    return ""


def _text(group: Group) -> str:
    kept = ", keeping their mean" if group.keeps_mean else ""
    heads = f"{'x'.join(map(str, group.contexts))} times " if group.contexts else ""
    return f"{heads}{group.size} channels rotated{kept}"
