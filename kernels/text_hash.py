"""A 64-bit hash of every text of a column, read where Arrow keeps them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_START = np.uint64(0x9E3779B97F4A7C15)
_FACTOR = np.uint64(0xD6E8FEB86659FD93)
_LENGTH = np.uint64(0xA0761D6478BD642F)


def hash_texts(data: NDArray[np.uint8], offsets: NDArray[Any]) -> NDArray[np.uint64]:
    """Hashes (n,) of the texts `data[offsets[i]:offsets[i + 1]]`, from n + 1 whole numbers.

    The same bytes give the same hash on every machine. Eight bytes at a time are mixed in by steps that are
    bijections, so that texts of one length that differ in one such word never collide; it is no
    protection against texts that are made to.
    """
    return _hash_texts(np.ascontiguousarray(data), np.ascontiguousarray(offsets, dtype=np.int64))


@numba.njit(cache=True)
def _mixed(state):  # type: ignore[no-untyped-def]
    """A bijection of 64 bits: two multiplications by an odd number, between shifts (degski's mixer)."""
    state ^= state >> np.uint64(32)
    state *= _FACTOR
    state ^= state >> np.uint64(32)
    state *= _FACTOR
    state ^= state >> np.uint64(32)
    return state


@numba.njit(cache=True)
def _hash_texts(data, offsets):  # type: ignore[no-untyped-def]
    found = np.empty(offsets.size - 1, np.uint64)
    for i in range(found.size):
        start, end = offsets[i], offsets[i + 1]
        state = _START + np.uint64(end - start) * _LENGTH
        at = start
        while at < end:
            word = np.uint64(0)
            for k in range(min(8, end - at)):
                word |= np.uint64(data[at + k]) << np.uint64(8 * k)
            state = _mixed(state ^ word)
            at += 8
        found[i] = _mixed(state)
    return found
