"""Distinct 64-bit keys and how often each occurs: what quantile tables are made of.

Float64 become keys in the order of the values (see `treadle.kernels.sketch`); -0.0 has the key of 0.0.
Work is done in place and in memory that is used again for the next column (`Scratch`): fresh pages
cost several times what counting does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.sorting import sort_keys

FEW_BITS = 14
"""Slots of the hash table, as a power of two: 256 KiB, which the second-level cache holds."""
FEW = 1 << (FEW_BITS - 1)
"""Most distinct values that are counted in the hash table; beyond that sorting is as fast."""
_SIGN = np.uint64(1 << 63)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SLOT_SHIFT = np.uint64(64 - FEW_BITS)

type Table = tuple[NDArray[np.uint64], NDArray[np.int64], int]
"""Sorted distinct keys, their counts, and how many low bits were dropped of them."""


class Scratch:
    """Memory for columns of at most `rows` values, one after the other."""

    def __init__(self, rows: int) -> None:
        self.numbers = np.empty(rows, dtype=np.float64)
        self.counts = np.empty(rows, dtype=np.int64)
        self.slots = np.empty(1 << FEW_BITS, dtype=np.uint64)
        self.slot_counts = np.empty(1 << FEW_BITS, dtype=np.int64)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that may not be written: Numba takes it for another type than the array itself, and compiles for each."""
    view = array.view()
    view.flags.writeable = False
    return view


def count_floats(count: int, scratch: Scratch, limit: int) -> Table:
    """The table of the first `count` of `scratch.numbers`, none of them NaN; they are lost."""
    numbers, counts = scratch.numbers[:count], scratch.counts[:count]
    keys = numbers.view(np.uint64)
    n = _count_few(numbers, scratch.slots, scratch.slot_counts)
    if n >= 0:
        order = np.argsort(scratch.slots[:n])
        return _coarsest(scratch.slots[:n][order], scratch.slot_counts[:n][order], 0, limit)
    _to_keys(numbers, keys)
    sort_keys(keys, counts)
    n = _runs(keys, counts)
    keys, counts, shift = _coarsest(keys[:n], counts[:n], 0, limit)
    return keys.copy(), counts.copy(), shift


def count_keys(keys: NDArray[np.uint64], limit: int) -> Table:
    """The table of an array of keys."""
    keys, counts = keys.copy(), np.empty(len(keys), dtype=np.int64)
    sort_keys(keys, counts)
    n = _runs(keys, counts)
    keys, counts, shift = _coarsest(keys[:n], counts[:n], 0, limit)
    return keys.copy(), counts.copy(), shift


def merge_tables(tables: Sequence[Table], limit: int) -> Table:
    """Tables, at least one, of at most `limit` keys each, as one of at most `limit` keys."""
    keys, counts, shift = tables[0]
    room = min(sum(len(table[0]) for table in tables), limit) + max(len(table[0]) for table in tables)
    spare, other = _pair(room), _pair(room)
    for more_keys, more_counts, more_shift in tables[1:]:
        shift = max(shift, more_shift)
        n = _merge(
            read_only(keys), read_only(counts), read_only(more_keys), read_only(more_counts), shift, spare[0], spare[1]
        )
        keys, counts, shift = _coarsest(spare[0][:n], spare[1][:n], shift, limit)
        spare, other = other, spare
    return keys.copy(), counts.copy(), shift


def _pair(size: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    return np.empty(size, dtype=np.uint64), np.empty(size, dtype=np.int64)


def _coarsest(keys: NDArray[np.uint64], counts: NDArray[np.int64], shift: int, limit: int) -> Table:
    """The table with the fewest bits dropped that has at most `limit` keys, made in place."""
    if len(keys) > limit:
        shift = _smallest_shift(keys, limit)
        n = _collapse(keys, counts, shift)
        keys, counts = keys[:n], counts[:n]
    return keys, counts, shift


@numba.njit(nogil=True, cache=True)
def _key(number):  # type: ignore[no-untyped-def]
    bits = np.float64(number + 0.0).view(np.uint64)
    return ~bits if bits & _SIGN else bits | _SIGN


@numba.njit(nogil=True, cache=True)
def _to_keys(numbers, keys):  # type: ignore[no-untyped-def]
    for i in range(len(numbers)):
        keys[i] = _key(numbers[i])


@numba.njit(nogil=True, cache=True)
def _count_few(numbers, slots, counts):  # type: ignore[no-untyped-def]
    """Counts in an open-addressing table, and moves what it holds to its beginning; how many keys, -1 for too many."""
    counts[:] = 0
    used = 0
    for i in range(len(numbers)):
        key = _key(numbers[i])
        slot = np.int64((key * _GOLDEN) >> _SLOT_SHIFT)
        while counts[slot] and slots[slot] != key:
            slot = (slot + 1) & (len(slots) - 1)
        if counts[slot] == 0:
            used += 1
            # Once most of the values differ, the rest will hardly be few.
            if used > FEW or (used == FEW // 4 and i < used + used // 2):
                return -1
            slots[slot] = key
        counts[slot] += 1
    n = 0
    for place in range(len(slots)):
        if counts[place]:
            slots[n], counts[n] = slots[place], counts[place]
            n += 1
    return n


@numba.njit(nogil=True, cache=True)
def _runs(keys, counts):  # type: ignore[no-untyped-def]
    """Moves the distinct of the sorted keys to the beginning, with their counts; how many they are."""
    if len(keys) == 0:
        return 0
    n = -1
    last = ~keys[0]
    for i in range(len(keys)):
        key = keys[i]
        n += key != last
        last = key
        keys[n] = key
        counts[n] = i + 1
    for i in range(n, 0, -1):
        counts[i] -= counts[i - 1]
    return n + 1


@numba.njit(nogil=True, cache=True)
def _smallest_shift(keys, limit):  # type: ignore[no-untyped-def]
    """The fewest low bits to drop so that at most `limit` of the sorted distinct keys stay apart.

    Neighbours stay apart under s while the highest bit in which they differ is not below s.
    """
    lengths = np.zeros(65, np.int64)
    for i in range(1, len(keys)):
        differing = keys[i] ^ keys[i - 1]
        # Without the bit after the highest the conversion cannot round up to the next power of two.
        bits = np.float64(differing & ~(differing >> np.uint64(1))).view(np.uint64)
        lengths[np.int64(bits >> np.uint64(52)) - 1022] += 1
    apart = min(len(keys), 1)
    for shift in range(64, 0, -1):
        apart += lengths[shift]
        if apart > limit:
            return shift
    return 0


@numba.njit(nogil=True, cache=True)
def _drop(key, shift):  # type: ignore[no-untyped-def]
    return (key >> np.uint64(shift)) << np.uint64(shift) if shift < 64 else np.uint64(0)


@numba.njit(nogil=True, cache=True)
def _collapse(keys, counts, shift):  # type: ignore[no-untyped-def]
    """Clears the low `shift` bits of sorted keys and adds up the counts of those that become one; how many are left."""
    n = -1
    last, total = ~_drop(keys[0], shift), 0
    for i in range(len(keys)):
        key = _drop(keys[i], shift)
        total = (total if key == last else 0) + counts[i]
        n += key != last
        last = key
        keys[n], counts[n] = key, total
    return n + 1


@numba.njit(nogil=True, cache=True)
def _merge(a_keys, a_counts, b_keys, b_counts, shift, keys, counts):  # type: ignore[no-untyped-def]
    """Two tables into one, with the low `shift` bits of the keys cleared; how many keys it has.

    Without branches on the keys, whose order cannot be foretold.
    """
    i = j = 0
    n = -1
    last, total = np.uint64(0), 0
    while i < len(a_keys) and j < len(b_keys):
        a, b = a_keys[i], b_keys[j]
        first = a <= b
        key = _drop(a if first else b, shift)
        count = a_counts[i] if first else b_counts[j]
        i += first
        j += not first
        new = n < 0 or key != last
        total = (0 if new else total) + count
        n += new
        last = key
        keys[n], counts[n] = key, total
    n, last, total = _append(a_keys, a_counts, i, shift, keys, counts, n, last, total)
    n, last, total = _append(b_keys, b_counts, j, shift, keys, counts, n, last, total)
    return n + 1


@numba.njit(nogil=True, cache=True)
def _append(from_keys, from_counts, start, shift, keys, counts, n, last, total):  # type: ignore[no-untyped-def]
    for i in range(start, len(from_keys)):
        key = _drop(from_keys[i], shift)
        new = n < 0 or key != last
        total = (0 if new else total) + from_counts[i]
        n += new
        last = key
        keys[n], counts[n] = key, total
    return n, last, total
