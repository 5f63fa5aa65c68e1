"""Hadamard matrices, and orthogonal matrices that are as flat as they can be for orders that have none."""

from functools import lru_cache

import numpy as np

from qcc.ir.graph.ops import Array


@lru_cache(maxsize=64)
def hadamard(order: int) -> Array | None:
    """A matrix of 1 and -1 with orthogonal rows ``[n, n]`` int8, or None where no construction here gives one.

    Doubling (Sylvester 1867), Paley's two constructions from the squares modulo a prime (1933), and Kronecker products
    of these. Of the orders up to 200 that are multiples of 4 this leaves out 52, 92, 100, 116, 156, 172, 184 and 188.
    """
    if order in (1, 2):
        return np.array([[1, 1], [1, -1]], np.int8)[:order, :order]
    if order < 1 or order % 4:
        return None
    half = hadamard(order // 2)
    if half is not None:
        return np.kron(np.array([[1, 1], [1, -1]], np.int8), half)
    if _is_prime(order - 1):
        return _paley_one(order - 1)
    if (order // 2 - 1) % 4 == 1 and _is_prime(order // 2 - 1):
        return _paley_two(order // 2 - 1)
    for factor in range(12, order // 12 + 1, 4):
        if order % factor == 0:
            left, right = hadamard(factor), hadamard(order // factor)
            if left is not None and right is not None:
                return np.kron(left, right)
    return None


def flat_orthogonal(order: int) -> Array:
    """An orthogonal matrix ``[n, n]`` whose entries are about equally large, in double precision.

    A Hadamard matrix where there is one, else the Kronecker product of the largest one whose order divides ``n`` and a
    Hartley matrix, whose entries are at most the square root of 2 times the mean size.
    """
    factor = max(one for one in range(1, order + 1) if order % one == 0 and hadamard(one) is not None)
    whole = hadamard(factor)
    assert whole is not None
    return np.asarray(np.kron(whole / np.sqrt(factor), _hartley(order // factor)))


def _hartley(order: int) -> Array:
    angles = 2 * np.pi * (np.outer(np.arange(order), np.arange(order)) % order) / order
    return np.asarray((np.cos(angles) + np.sin(angles)) / np.sqrt(order))


def _paley_one(prime: int) -> Array:
    """Order ``prime + 1``, for a prime that is 3 modulo 4."""
    skew = np.zeros((prime + 1, prime + 1), np.int8)
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, _jacobsthal(prime)
    return np.asarray(skew + np.eye(prime + 1, dtype=np.int8))


def _paley_two(prime: int) -> Array:
    """Order ``2 prime + 2``, for a prime that is 1 modulo 4."""
    conference = np.zeros((prime + 1, prime + 1), np.int8)
    conference[0, 1:], conference[1:, 0], conference[1:, 1:] = 1, 1, _jacobsthal(prime)
    unit = np.eye(prime + 1, dtype=np.int8)
    blocks = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
    return np.asarray(np.kron(conference, blocks[0]) + np.kron(unit, blocks[1]))


def _jacobsthal(prime: int) -> Array:
    """``[i, j]`` is 1 where ``i - j`` is a square modulo the prime, -1 where it is none, 0 on the diagonal."""
    signs = np.full(prime, -1, np.int8)
    signs[np.arange(1, prime, dtype=np.int64) ** 2 % prime] = 1
    signs[0] = 0
    return np.asarray(signs[(np.arange(prime)[:, None] - np.arange(prime)[None, :]) % prime])


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
