"""Codes packed into bytes.

A code of ``bits`` bits is cut into *planes* of 8, 4, 2 or 1 bits, lowest first (3 = 2 + 1, 7 = 4 + 2 + 1). Each plane
fills whole bytes, so one table of 256 entries unpacks it, on any runtime and in any kernel, and a single plane of 4
bits is the layout that runtimes use for int4.
"""

import numpy as np

PLANE_WIDTHS = (8, 4, 2, 1)
UNIT = 8  # bits of a byte, and codes that fill whole bytes in every plane


def planes(bits: int) -> tuple[int, ...]:
    """The widths of the planes of a code, lowest bits first."""
    widths = []
    for width in PLANE_WIDTHS:
        if bits >= width:
            widths.append(width)
            bits -= width
    return tuple(widths)


def pack(codes: np.ndarray, bits: int) -> tuple[np.ndarray, ...]:
    """Pack uint8 codes along their last axis, one array of bytes a plane; a last byte is filled with zeros."""
    packed, shift = [], 0
    for width in planes(bits):
        plane = codes if width == bits else (codes >> shift) & ((1 << width) - 1)
        packed.append(_pack_plane(plane, width))
        shift += width
    return tuple(packed)


def unpack(packed: tuple[np.ndarray, ...], bits: int, count: int) -> np.ndarray:
    """The first ``count`` codes along the last axis."""
    codes = np.zeros((*packed[0].shape[:-1], count), np.uint8)
    shift = 0
    for plane, width in zip(packed, planes(bits), strict=True):
        parts = (plane[..., None] >> np.arange(0, 8, width, dtype=np.uint8)) & np.uint8((1 << width) - 1)
        codes |= parts.reshape(*plane.shape[:-1], plane.shape[-1] * (8 // width))[..., :count] << np.uint8(shift)
        shift += width
    return codes


def packed_bytes(count: int, bits: int) -> int:
    """The bytes that ``count`` codes take, all planes together, filled up to whole units."""
    return -(-count // UNIT) * bits


def _pack_plane(plane: np.ndarray, width: int) -> np.ndarray:
    """Pack codes of so few bits; those of a byte are read as one number, of which each is moved down to its place."""
    missing, per_byte = -plane.shape[-1] % UNIT, UNIT // width
    if missing:
        plane = np.pad(plane, [(0, 0)] * (plane.ndim - 1) + [(0, missing)])
    if per_byte == 1:
        return plane
    words = np.ascontiguousarray(plane).view(f"<u{per_byte}")
    packed = words.astype(np.uint8)
    for position in range(1, per_byte):
        packed |= (words >> (position * (UNIT - width))).astype(np.uint8)
    return packed
