"""Where things stand in the picture of the axes: layers as rows, groups of channels as lanes beside them.

Layers that repeat are drawn once. A lane runs from the first row that has its channels to the last. Streams, which are
read before they are written again, run left of the layers and all others right, the shortest next to the layers.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qcc.compiler.console.numbered_names import patterns, template
from qcc.compiler.inspect.survey import Side, Survey, WeightChannels
from qcc.ir.graph.ops import Kind, Layer, Weight

PITCH = 42  # from lane to lane
ROW, TOP_OF_FRAME, END_OF_FRAME = 52, 40, 18
WIRE = 12  # how far the wires lie above and below a row's middle
TAG, AFTER = 14, 5  # room before a lane for its size, and behind it
_NUMBERS = re.compile(r"[^./]*[./]?\{[^}]*\}")
_LEAST_SAVED = 2  # rows, for repeats to be drawn once


@dataclass(frozen=True)
class Box:
    """A layer, with the sides of its weight: what it reads and what it writes."""

    name: str
    kind: str
    window: str
    groups: int
    reads: Side
    writes: Side
    tied: bool


@dataclass
class DrawnRow:
    """A layer that is drawn, for itself and the repeats of it; ``y`` is its middle."""

    box: Box
    names: list[str]
    y: float = 0


@dataclass(frozen=True)
class Frame:
    """Rows that are repeated: the first, the one behind the last, how often, and the numbers that tell them apart."""

    start: int
    stop: int
    count: int
    numbers: str


@dataclass
class Lane:
    """A group of channels, and those that stand for it in repeats; ``column`` counts away from the layers."""

    channels: list[WeightChannels]
    touches: list[tuple[int, bool]]
    """The rows that have the channels, and whether they write them."""
    left: bool = False
    column: int = 0
    start: float = 0
    stop: float = 0


@dataclass
class Layout:
    """The whole picture, without its text."""

    rows: list[DrawnRow] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    height: float = 0

    def columns(self, left: bool) -> int:
        """How many lanes lie side by side."""
        return max((lane.column + 1 for lane in self.lanes if lane.left is left), default=0)


def layout(survey: Survey) -> Layout:
    """Lay out the layers and the channels of a graph."""
    boxes = list(_boxes(survey))
    known = {id(one.group): one for one in survey.channels}
    plan = _Repeats(boxes, known)
    made = Layout()
    at = 0
    while at < len(boxes):
        length, count = plan.best(at)
        start = len(made.rows)
        for number in range(length):
            names = [boxes[at + number + repeat * length].name for repeat in range(count)]
            made.rows.append(DrawnRow(boxes[at + number], names))
        if count > 1:
            made.frames.append(Frame(start, len(made.rows), count, _numbers(made.rows[start].names)))
        at += length * count
    _set_rows(made)
    made.lanes = list(_lanes(made, known, plan.alike))
    for left in (True, False):
        _set_columns([lane for lane in made.lanes if lane.left is left])
    return made


def _numbers(names: Sequence[str]) -> str:
    """``layers.{0..5}``: what tells repeats apart, if one number does."""
    found = patterns(names)
    if len(found) != 1 or "{" not in found[0]:
        return ""
    match = _NUMBERS.search(found[0])
    return match[0] if match else ""


def _boxes(survey: Survey) -> Iterator[Box]:
    """The layers in the order in which they run."""
    order = {name: number for number, name in enumerate(survey.ops)}
    layers = [(order[layer.op], layer, weight) for weight in survey.weights for layer in weight.layers]
    seen: set[str] = set()
    for _, layer, weight in sorted(layers, key=lambda one: one[0]):
        reads, writes = _ends(survey, layer, weight)
        window = "x".join(map(str, layer.kernel)) if any(size > 1 for size in layer.kernel) else ""
        yield Box(layer.name, layer.kind.value, window, layer.groups, reads, writes, weight.name in seen)
        seen.add(weight.name)


def _ends(survey: Survey, layer: Layer, weight: Weight) -> tuple[Side, Side]:
    out, into = survey.side(weight, "out"), survey.side(weight, "in")
    if layer.kind is Kind.EMBEDDING:
        return out, into
    if layer.kind is Kind.CONV and layer.groups > 1:
        output = survey.ops[layer.op].outputs[0]
        return (
            survey.side_of_value(weight.name, "in", layer.input, 1),
            survey.side_of_value(weight.name, "out", output, 1),
        )
    return into, out


Ports = list[tuple[WeightChannels, bool]]


class _Repeats:
    """Finds runs of layers that are alike, and so are the groups between them."""

    def __init__(self, boxes: Sequence[Box], known: dict[int, WeightChannels]) -> None:
        self.alike: dict[int, list[WeightChannels]] = {}
        self._ports: list[Ports] = []
        self._touches: dict[int, list[int]] = {}
        self._signs = [_sign(box) for box in boxes]
        for number, box in enumerate(boxes):
            ports = [
                (known[id(group)], writes)
                for side, writes in ((box.reads, False), (box.writes, True))
                for group in side.groups
                if id(group) in known
            ]
            self._ports.append(ports)
            for channels, _ in ports:
                self._touches.setdefault(id(channels.group), []).append(number)

    def best(self, start: int) -> tuple[int, int]:
        """How many layers repeat from here on and how often: what saves most rows; ``(1, 1)`` if nothing does."""
        best, images = (1, 1), dict[int, list[WeightChannels]]()
        for length in range(1, (len(self._signs) - start) // 2 + 1):
            if self._signs[start] != self._signs[start + length]:
                continue
            count, found = self._count(start, length)
            saved, before = length * (count - 1), best[0] * (best[1] - 1)
            if saved >= _LEAST_SAVED and saved > before:
                best, images = (length, count), found
        self.alike.update(images)
        return best

    def _count(self, start: int, length: int) -> tuple[int, dict[int, list[WeightChannels]]]:
        images: dict[int, list[WeightChannels]] = {}
        count = 1
        while True:
            shift = count * length
            end = start + shift + length
            if self._signs[start + shift : end] != self._signs[start : start + length]:
                return count, images
            pairs = self._pairs(start, length, shift)
            if pairs is None or (count > 1 and set(pairs) != set(images)):
                return count, images
            for key, image in pairs.items():
                images.setdefault(key, []).append(image)
            count += 1

    def _pairs(self, start: int, length: int, shift: int) -> dict[int, WeightChannels] | None:
        """The inner groups of the first run with those of another; None unless all others are the same in both."""
        pairs: dict[int, WeightChannels] = {}
        for number in range(start, start + length):
            here, there = self._ports[number], self._ports[number + shift]
            if len(here) != len(there):
                return None
            for (one, writes), (other, also) in zip(here, there, strict=True):
                if one is other and writes == also:
                    continue
                inner = self._within(one, start, length) and self._within(other, start + shift, length)
                if not inner or writes != also or pairs.setdefault(id(one.group), other) is not other:
                    return None
                if (one.size_text, bool(one.group.fixed)) != (other.size_text, bool(other.group.fixed)):
                    return None
        return pairs

    def _within(self, channels: WeightChannels, start: int, length: int) -> bool:
        return all(start <= number < start + length for number in self._touches[id(channels.group)])


def _sign(box: Box) -> tuple[object, ...]:
    return template(box.name), box.kind, box.window, box.groups, box.reads.text, box.writes.text, box.tied


def _set_rows(made: Layout) -> None:
    """Give rows their heights; frames take room of their own."""
    starts, stops = {frame.start for frame in made.frames}, {frame.stop for frame in made.frames}
    y: float = 0
    for number, row in enumerate(made.rows):
        y += END_OF_FRAME if number in stops else 0
        y += TOP_OF_FRAME if number in starts else 0
        row.y = y + ROW / 2
        y += ROW
    made.height = y + (END_OF_FRAME if len(made.rows) in stops else 0)


def _lanes(made: Layout, known: dict[int, WeightChannels], alike: dict[int, list[WeightChannels]]) -> Iterator[Lane]:
    """The groups that are drawn; one that is fixed and that a single weight has is not."""
    touches: dict[int, list[tuple[int, bool]]] = {}
    for number, row in enumerate(made.rows):
        for side, writes in ((row.box.reads, False), (row.box.writes, True)):
            for group in side.groups:
                if id(group) in known:
                    touches.setdefault(id(group), []).append((number, writes))
    for key, at in touches.items():
        channels = known[key]
        if channels.group.fixed and len(channels.weights) == 1:
            continue
        lane = Lane([channels, *alike.get(key, ())], at)
        ys = [made.rows[number].y + (WIRE if writes else -WIRE) for number, writes in at]
        lane.start, lane.stop = min(ys) - AFTER, max(ys) + AFTER
        framed = [frame for frame in made.frames if any(frame.start <= number < frame.stop for number, _ in at)]
        lane.left = _is_stream(at) or (bool(framed) and len(lane.channels) == 1)
        for frame in framed if len(lane.channels) == 1 else ():  # what all repeats share runs through the frame
            lane.start = min(lane.start, made.rows[frame.start].y - 54 + TAG)
            lane.stop = max(lane.stop, made.rows[frame.stop - 1].y + ROW / 2)
        yield lane


def _is_stream(touches: Sequence[tuple[int, bool]]) -> bool:
    """WeightChannels that some layer reads and a later one writes: a residual stream."""
    reads = {row for row, writes in touches if not writes}
    return any(writes and row not in reads and row > min(reads, default=row) for row, writes in touches)


def _set_columns(lanes: list[Lane]) -> None:
    """Put lanes side by side, short ones next to the layers, each in the nearest column that is free there."""
    taken: list[list[tuple[float, float]]] = []
    for lane in sorted(lanes, key=lambda one: (one.stop - one.start, one.start)):
        start, stop = lane.start - TAG, lane.stop
        free = (
            column
            for column, others in enumerate(taken)
            if all(stop <= first or last <= start for first, last in others)
        )
        lane.column = next(free, len(taken))
        if lane.column == len(taken):
            taken.append([])
        taken[lane.column].append((start, stop))
