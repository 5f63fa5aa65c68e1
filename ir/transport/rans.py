"""Range coding by asymmetric numeral systems: symbols in as many bits as they are unlikely.

A stream has a table of how often each symbol is, and lanes that take turns: the first ``lanes`` symbols go to one lane
each, and so on. A lane is a number of 32 bits; where it would outgrow them it gives up 16. All of it is whole numbers,
so that a file is read the same on every machine, and for as long as this page stands.

Source: Duda 2013, *Asymmetric numeral systems* (arXiv:1311.2540); interleaved lanes, Giesen 2014 (arXiv:1402.3392).
"""

from dataclasses import dataclass

import numpy as np

SCALE_BITS = 14
SCALE = 1 << SCALE_BITS  # what a table sums up to
WORD_BITS = 16
LEAST = 1 << WORD_BITS  # what a lane never falls below
SYMBOLS_A_LANE = 2048  # four bytes a lane are what that costs
MOST_LANES = 4096
HEAD = np.dtype([("count", "<u8"), ("lanes", "<u4"), ("symbols", "<u4")])


@dataclass(frozen=True)
class _Table:
    """How often each symbol is, of `SCALE`, and how often all before it are."""

    often: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, often: np.ndarray) -> "_Table":
        wide = often.astype(np.uint64)
        return cls(wide, np.cumsum(wide) - wide)


def encode(symbols: np.ndarray) -> bytes:
    """Symbols, uint8, of which there are two at least, as a stream that tells all it takes to read it."""
    count = len(symbols)
    lanes = min(max(count // SYMBOLS_A_LANE, 1), MOST_LANES)
    often = _scaled(np.bincount(symbols))
    table = _Table.of(often)
    state = np.full(lanes, LEAST, np.uint64)
    given: list[np.ndarray] = []
    for start in reversed(range(0, count, lanes)):
        part = symbols[start : start + lanes]
        here = state[: len(part)]
        often_here = table.often[part]
        full = here >= (often_here << np.uint64(2 * WORD_BITS - SCALE_BITS))
        given.append(here[full].astype("<u2"))  # the lowest bits: higher ones are cut off
        here[full] >>= np.uint64(WORD_BITS)
        whole, rest = np.divmod(here, often_here)
        here[:] = (whole << np.uint64(SCALE_BITS)) + rest + table.before[part]
    head = np.array((count, lanes, len(often)), HEAD)
    words = np.concatenate(given[::-1]) if given else np.zeros(0, "<u2")
    return head.tobytes() + often.astype("<u2").tobytes() + state.astype("<u4").tobytes() + words.tobytes()


def decode(stream: bytes | memoryview, count: int) -> np.ndarray:
    """The symbols of a stream, uint8.

    Args:
        stream: what `encode` gave.
        count: how many symbols there must be.

    Raises:
        ValueError: it is none, or holds others.
    """
    head, often, state, words = _parts(stream)
    if int(head["count"]) != count:
        raise ValueError(f"{int(head['count']):,} symbols in the place of {count:,}")
    table, lanes = _Table.of(often), len(state)
    symbol_at = np.repeat(np.arange(len(often), dtype=np.uint8), often)
    found, at = np.empty(count, np.uint8), 0
    for start in range(0, count, lanes):
        here = state[: min(lanes, count - start)]
        slot = here & np.uint64(SCALE - 1)
        part = symbol_at[slot]
        found[start : start + lanes] = part
        here[:] = table.often[part] * (here >> np.uint64(SCALE_BITS)) + slot - table.before[part]
        low = np.flatnonzero(here < LEAST)
        if at + len(low) > len(words):
            raise ValueError("the stream ends early")
        here[low] = (here[low] << np.uint64(WORD_BITS)) | words[at : at + len(low)]
        at += len(low)
    if at < len(words) or (state != LEAST).any():
        raise ValueError("the stream does not end where it began")
    return found


def _parts(stream: bytes | memoryview) -> tuple[np.void, np.ndarray, np.ndarray, np.ndarray]:
    """The head, the table, the lanes and the words."""
    if len(stream) < HEAD.itemsize:
        raise ValueError("no stream")
    head = np.frombuffer(stream, HEAD, 1)[0]
    lanes, symbols = int(head["lanes"]), int(head["symbols"])
    start = HEAD.itemsize + 2 * symbols
    if not (2 <= symbols <= 256 and 1 <= lanes <= MOST_LANES and start + 4 * lanes <= len(stream)):
        raise ValueError("no stream")
    often = np.frombuffer(stream, "<u2", symbols, HEAD.itemsize).astype(np.int64)
    if int(often.sum()) != SCALE:
        raise ValueError("a table that does not add up")
    state = np.frombuffer(stream, "<u4", lanes, start).astype(np.uint64)
    rest = memoryview(stream)[start + 4 * lanes :]
    return head, often, state, np.frombuffer(rest[: len(rest) // 2 * 2], "<u2").astype(np.uint64)


def _scaled(counts: np.ndarray) -> np.ndarray:
    """Counts, two of them not zero, as shares of `SCALE`: at least one for what is there at all."""
    shares = counts * (SCALE / counts.sum())
    often = np.where(counts > 0, np.maximum(np.floor(shares), 1), 0).astype(np.int64)
    while (left := SCALE - int(often.sum())) != 0:
        if left > 0:
            often[np.argmax(shares - often)] += 1
        else:
            often[np.argmax(np.where(often > 1, often - shares, -np.inf))] -= 1
    return often
