"""How large the numbers of each channel are in the constants of a group."""

from collections.abc import Iterable, Sequence

import numpy as np

from qcc.ir.axes.axes import Action, Axes, Group, Member
from qcc.ir.graph.ops import Array

CLOSE = 0.01  # a scale that differs less from one is not worth a rewrite
DEAD = 1e-6  # of a constant's largest range: a channel of less does not count


def channel_range(axes: Axes, group: Group, members: Sequence[Member]) -> Array:
    """The geometric mean, over some constants, of each channel's largest number: ``[*contexts, size]``.

    Constants in which a channel is about zero do not count for it; zero where none counts.
    """
    shape = (*group.contexts, group.size)
    total, count = np.zeros(shape), np.zeros(shape)
    for member in members:
        found = largest(axes, group, [member])
        alive = found > 0
        total += np.log(found, out=np.zeros(shape), where=alive)
        count += alive
    return np.where(count > 0, np.exp(total / np.maximum(count, 1)), 0)


def largest(axes: Axes, group: Group, members: Sequence[Member]) -> Array:
    """Each channel's largest number in some constants together: ``[*contexts, size]``."""
    found = np.max([np.abs(axes.read(member, group)).max(-1) for member in members], axis=0)
    return np.where(found > DEAD * found.max(), found, 0)


def balance(risen: Array, fallen: Array, relative: bool = False) -> Array:
    """The scale by which one range grows and the other shrinks until they are equal; one where either is zero.

    Args:
        risen: a range of each channel.
        fallen: the other.
        relative: until they are proportional; the geometric mean of the scales is then one.
    """
    alive = (risen > 0) & (fallen > 0)
    difference = np.log(np.divide(fallen, risen, out=np.ones(risen.shape), where=alive))
    if relative and np.any(alive):
        difference = np.where(alive, difference - difference[alive].mean(), 0)
    return np.asarray(np.exp(difference / 2))


def is_close(scale: Array) -> bool:
    """A scale changes next to nothing."""
    return bool(np.all(np.abs(np.log(scale)) < CLOSE))


def joins_queries(group: Group) -> bool:
    """A group's channels are only summed over in products of two computed values, such as queries and keys."""
    return not group.readers and len({member.exponent for member in group.members if not member.constant}) > 1


def covered(groups: Iterable[Group]) -> set[tuple[str, int]]:
    """The axes of constants for which there is a free group."""
    return {(member.value, member.axis) for group in groups if not group.fixed for member in group.constants}


def scale_groups(axes: Axes, targets: Sequence[str]) -> list[Group]:
    """The groups that may be scaled, or could be but for a reason, with a target among their weights."""
    wanted = set(targets)
    groups = axes.groups(Action.SCALE)
    return [group for group in groups if wanted.intersection(group.readers) | wanted.intersection(group.writers)]


def range_text(scale: Array) -> str:
    """The smallest and the largest of some scales."""
    return f"scaled by {scale.min():.3g} to {scale.max():.3g}"
