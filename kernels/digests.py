"""64-bit digests of whole columns, and of whole rows.

They compare values of one kind, are the same on every machine, and are no protection against values
that are made to collide.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_START = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
_LENGTH = np.uint64(0xA0761D6478BD642F)
_NULL = np.uint64(0xE7037ED1A0B428DB)


def fold(keys: NDArray[np.uint64], known: NDArray[np.bool_], first_row: int, rows: NDArray[np.uint64]) -> np.uint64:
    """The digest of a column, from one key a row (n,); null where `known` (n,) is false.

    Digests of parts add up, modulo 2**64, to that of the whole, when `first_row` is the number of rows before each
    part: two columns have the same digest when they have the same keys and nulls in the same rows.
    `rows` (n,) are the digests of the rows so far, zeros at first (or any number, the same for all rows: from another
    one come other digests); the column is mixed into them in place.
    """
    arrays = np.ascontiguousarray(keys, dtype=np.uint64), np.ascontiguousarray(known)
    return np.uint64(_fold(*arrays, np.uint64(first_row), rows))


@numba.njit(cache=True)
def _fold(keys, known, first_row, rows):  # type: ignore[no-untyped-def]
    total = np.uint64(0)
    for i in range(keys.size):
        cell = _mixed(keys[i] + _START) if known[i] else _NULL
        total += _mixed(cell ^ _mixed(first_row + np.uint64(i) + _LENGTH))
        rows[i] = _mixed(rows[i] * _FACTOR + cell)
    return total


@numba.njit(cache=True)
def _mixed(state):  # type: ignore[no-untyped-def]
    """A bijection of 64 bits: two multiplications by an odd number, between shifts (degski's mixer)."""
    state ^= state >> np.uint64(32)
    state *= _FACTOR
    state ^= state >> np.uint64(32)
    state *= _FACTOR
    state ^= state >> np.uint64(32)
    return state
