"""What `qcc inspect --axes` prints: the groups of channels with what may be done to them, and all of it as JSON."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from qcc.compiler.console import terminal
from qcc.compiler.console.fit_table import Column, Table
from qcc.compiler.console.numbered_names import collapse, patterns, template
from qcc.compiler.inspect.survey import BLOCKS, FIXED, FREE, SINGLE, Side, Survey, WeightChannels, size_text
from qcc.dsl.diagnostics.excerpt import escape
from qcc.dsl.policy.select import matches_glob
from qcc.ir.axes.axes import Action, Group, Member

_MOST_NAMES, _MOST_REASONS = 4, 3
_LAST_NUMBER = re.compile(r" #\d+$")


def write_axes(survey: Survey) -> None:
    """Print every group, repeated layers as one, then both sides of every weight, then the totals."""
    if not survey.channels:
        terminal.write_line("no weight has channels that are known")
    for name, found in collapse(survey.channels, common_name, lambda one: _facts(survey, one)):
        count = f" ({len(found)} groups)" if len(found) > 1 else ""
        terminal.write_line(escape(name) + count)
        terminal.write(terminal.pairs(_listed(survey, found), "  "))
        terminal.write_line()
    if survey.sides:
        terminal.write_table(_sides(survey))
        terminal.write_line()
    terminal.write(terminal.pairs(_totals(survey)))


def write_groups(survey: Survey, found: Sequence[WeightChannels]) -> None:
    """Print some groups in full."""
    for number, channels in enumerate(found):
        if number:
            terminal.write_line()
        terminal.write_line(escape(channels.group.name))
        terminal.write(terminal.pairs(_listed(survey, [channels], full=True), "  "))
        for group in (channels.group, *channels.scale, *channels.rotate):
            words = word_of(group) + (f": {group.fixed}" if group.fixed else "")
            terminal.write_line(f"\n  {group.action.value}: {escape(group.name)}, {size_text(group)}, {escape(words)}")
            terminal.write_table(_members(group), "    ")


def matching(survey: Survey, glob: str) -> list[WeightChannels]:
    """The groups whose name, or the name of one of whose layers, a glob fits."""
    aliases = {weight.name: [name for layer in weight.layers for name in layer.names] for weight in survey.weights}
    return [
        one
        for one in survey.channels
        if any(
            matches_glob(glob, name)
            for name in (one.group.name, *(layer for weight in one.weights for layer in aliases[weight]))
        )
    ]


def axes_json(survey: Survey) -> dict[str, Any]:
    """Everything: all groups of all actions with their members, and the sides of weights."""
    return {
        "groups": {action.value: [_group(one) for one in survey.axes.groups(action)] for action in Action},
        "sides": [
            {
                "weight": side.weight,
                "side": side.side,
                "size": side.size,
                "structure": side.text,
                "freedom": side.freedom,
                "reason": side.reason or None,
                "groups": [group.name for group in side.groups],
            }
            for side in survey.sides
        ],
        "totals": {
            **{action.value: _counted(_of(survey, action)) for action in Action},
            "sides": dict(Counter(side.freedom for side in survey.sides)),
        },
    }


def common_name(one: WeightChannels) -> str:
    """A group's name without the number that tells groups of one layer apart."""
    return _LAST_NUMBER.sub("", one.group.name)


def word_of(group: Group) -> str:
    """What may be done to a group, in a word."""
    if group.fixed:
        return "no"
    return (
        "free, by positive scales" if group.positive else "free, by what keeps the mean" if group.keeps_mean else "free"
    )


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "size": group.size,
        "contexts": list(group.contexts),
        "fixed": group.fixed or None,
        "positive": group.positive,
        "keeps_mean": group.keeps_mean,
        "writers": list(group.writers),
        "readers": list(group.readers),
        "members": [_member(member) for member in group.members],
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "value": member.value,
        "axis": member.axis,
        "start": member.start,
        "stop": member.stop,
        "exponent": member.exponent,
        "constant": member.constant,
        "weight": member.weight or None,
        "side": member.side or None,
        "reader": list(member.reader) if member.reader else None,
    }


def _facts(survey: Survey, one: WeightChannels) -> tuple[object, ...]:
    """What has to be equal for two groups to be told as one."""
    names = tuple(tuple(sorted({template(name) for name in part})) for part in (one.writers, one.readers, one.tables))
    counts = len(one.writers), len(one.readers), len(one.tables), one.norms, one.biases, one.others
    freedom = tuple(freedom_text(survey, one, action) for action in Action)
    return one.group.size, one.group.contexts, names, counts, tuple(template(text) for text in freedom)


def _listed(survey: Survey, found: Sequence[WeightChannels], full: bool = False) -> Iterator[tuple[str, str]]:
    """A group, or several that are alike, in lines."""
    one, each = found[0], " in each" if len(found) > 1 else ""
    yield "channels", one.size_text
    for title, parts in (
        ("tables", [channels.tables for channels in found]),
        ("written by", [channels.writers for channels in found]),
        ("read by", [channels.readers for channels in found]),
    ):
        names = patterns(name for part in parts for name in part)
        if names:
            shown = names if full else names[:_MOST_NAMES]
            rest = f", and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
            yield title, f"{len(parts[0]):,}{each}: {', '.join(shown)}{rest}"
    if beside := _beside(one):
        yield "beside", beside + each
    for action in Action:
        yield action.value, freedom_text(survey, one, action, full)


def _beside(one: WeightChannels) -> str:
    counts = (
        (one.norms, "norm", "norms"),
        (one.biases, "bias", "biases"),
        (one.others, "other constant", "other constants"),
    )
    return ", ".join(f"{count:,} {single if count == 1 else many}" for count, single, many in counts if count)


def freedom_text(survey: Survey, one: WeightChannels, action: Action, full: bool = False) -> str:
    """Whether an action is free on the channels, and why not."""
    groups = one.of(action)
    if not groups:
        return f"with `{one.finer[action]}`" if action in one.finer else "no: no constant could take it up"
    free = [group for group in groups if not group.fixed]
    words = " or ".join(sorted({word_of(group) for group in free}))
    reasons = list(dict.fromkeys(group.fixed if full else survey.plain(group.fixed) for group in groups if group.fixed))
    shown = reasons if full else reasons[:_MOST_REASONS]
    why = "; ".join(shown) + (f"; and {len(reasons) - len(shown)} more" if len(reasons) > len(shown) else "")
    if not free:
        return f"no: {why}"
    if len(free) == len(groups):
        return words
    return f"{words}, in {len(free):,} of {len(groups):,} places; elsewhere not: {why}"


def _sides(survey: Survey) -> Table:
    """Both sides of every weight; weights that differ in a number only are one row."""
    rows = [(out, into) for out, into in zip(survey.sides[::2], survey.sides[1::2], strict=True)]
    found = collapse(rows, lambda row: row[0].weight, lambda row: tuple((side.text, side.freedom) for side in row))
    cells = tuple((name, *(_side(side) for side in part[0])) for name, part in found)
    return Table((Column("weight"), Column("out"), Column("in")), cells)


def _side(side: Side) -> str:
    if side.freedom == SINGLE:
        return "1"
    made = f"{side.size} = {side.text}" if side.text != str(side.size) else side.text
    return f"{made}, {side.freedom}"


def _totals(survey: Survey) -> Iterator[tuple[str, str]]:
    freedom = Counter(side.freedom for side in survey.sides)
    words = ", ".join(f"{freedom[word]:,} {word}" for word in (FREE, BLOCKS, FIXED))
    yield "sides", f"{words}; of {len(survey.weights):,} weights"
    for action in Action:
        counts = _counted(_of(survey, action))
        more = [f"{counts[key]:,} {text}" for key, text in _MORE[action] if counts[key]]
        less = f" ({', '.join(more)})" if more else ""
        yield action.value, f"{counts['free']:,} of {counts['free'] + counts['fixed']:,} groups free{less}"


_MORE = {
    Action.PERMUTE: (),
    Action.SCALE: (("positive", "by positive scales only"),),
    Action.ROTATE: (("keeps_mean", "only by what keeps the mean"),),
    Action.SELECT: (),
}


def _of(survey: Survey, action: Action) -> list[Group]:
    """The groups of more than one channel that a weight has."""
    return [group for group in survey.axes.groups(action) if group.size > 1 and survey.is_on_weight(group)]


def _counted(groups: Sequence[Group]) -> dict[str, int]:
    free = [group for group in groups if not group.fixed]
    return {
        "free": len(free),
        "fixed": len(groups) - len(free),
        "positive": sum(group.positive for group in free),
        "keeps_mean": sum(group.keeps_mean for group in free),
    }


def _members(group: Group) -> Table:
    scaling = group.action is Action.SCALE
    titles = ("value", "axis", "range", *(("exponent",) if scaling else ()), "what")
    rows = [
        (
            member.value,
            str(member.axis),
            f"{member.start}:{member.stop}",
            *((f"{member.exponent:+d}",) if scaling else ()),
            _what(member),
        )
        for member in group.members
    ]
    return Table(tuple(Column(title, right=title in ("axis", "exponent")) for title in titles), tuple(rows))


def _what(member: Member) -> str:
    if member.weight:
        return f"{member.side} of {member.weight}"
    if not member.constant:
        return "computed"
    return f"constant of {member.reader[0]}" if member.reader else "constant"
