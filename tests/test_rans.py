"""The coder's law: what is decoded is what was encoded, in about its entropy; anything else is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcc.ir.transport.rans import SCALE, decode, encode

FIRST = "0600000000000000010000000300000055150020ab0a94ccb501"
OVERHEAD = 600  # bytes: the head, a table of 256, and a lane
SHARE = 0.01  # of the entropy: lanes, and shares in whole numbers


def drawn(count: int, kinds: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    symbols = rng.choice(kinds, count, p=rng.dirichlet(np.full(kinds, 0.5))).astype(np.uint8)
    symbols[0], symbols[-1] = 0, kinds - 1
    return symbols


def entropy_bytes(symbols: np.ndarray) -> float:
    shares = np.bincount(symbols) / len(symbols)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum() * len(symbols) / 8)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(2, 3000), st.integers(2, 256), st.integers(0, 99))
def test_symbols_come_back(count: int, kinds: int, seed: int) -> None:
    symbols = drawn(count, kinds, seed)
    stream = encode(symbols)
    assert np.array_equal(decode(stream, count), symbols)
    assert len(stream) <= entropy_bytes(symbols) * (1 + SHARE) + OVERHEAD


def test_many_lanes_come_back() -> None:
    symbols = drawn(100_000, 8, 3)
    stream = encode(symbols)
    assert np.array_equal(decode(stream, len(symbols)), symbols)
    assert len(stream) <= entropy_bytes(symbols) * (1 + SHARE) + 100


def test_a_stream_is_the_same_for_ever() -> None:
    assert encode(np.array([0, 1, 2, 1, 1, 0], np.uint8)).hex() == FIRST


def test_rare_symbols_keep_a_share() -> None:
    symbols = np.zeros(10 * SCALE, np.uint8)
    symbols[:255] = np.arange(1, 256)
    assert np.array_equal(decode(encode(symbols), len(symbols)), symbols)


def test_what_was_changed_is_refused_or_is_other_symbols() -> None:
    symbols = drawn(150, 5, 1)
    stream = encode(symbols)
    for at in range(len(stream)):
        broken = bytearray(stream)
        broken[at] ^= 1 + at % 255
        try:
            assert not np.array_equal(decode(bytes(broken), len(symbols)), symbols)
        except ValueError:
            continue
    for end in (0, 3, 15, 20, len(stream) - 2):
        with pytest.raises(ValueError, match=r"stream|add up"):
            decode(stream[:end], len(symbols))
    with pytest.raises(ValueError, match="in the place of"):
        decode(stream, len(symbols) - 1)
