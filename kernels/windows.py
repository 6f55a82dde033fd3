"""Windows over rows in groups: order, bounds, and sums, moments and extremes of sliding ranges.

Rows are taken in the order of their groups, and in each group in the order of a key; equal keys keep
the order that they came in. A window of the row at position p is the range of positions low[p] to
high[p] (excluded). Inside a group both never fall, and ranges do not reach into other groups.

What slides is never subtracted. A range is the end of a finished block plus what was added since: the
block's sums from each of its positions to its end are made once, when the range leaves the block before,
so that a row is added twice at most, and a huge value or an infinity leaves no rounding behind once it has
left the range. Blocks begin anew with every group: results depend on the rows of the group only.

Source: the queue of two stacks, as in Tangwongsan, Hirzel and Schneider, "Low-latency sliding-window
aggregation in worst-case constant time", DEBS 2017, section 2; moments merge as in `treadle.kernels.moments`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def order_groups(codes: Integers, groups: int, keys: NDArray[Any] | None) -> tuple[Integers, Integers]:
    """Positions in the order of groups and keys.

    Parameters
    ----------
    codes
        (rows,) int64: the group of each row, 0 to groups - 1.
    keys
        (rows,): what rows of a group are ordered by; as they come when absent.

    Returns
    -------
    The row at each position (rows,), and the first position of each group (groups + 1,). Host arrays.
    """
    index, start = _by_group(codes, groups)
    if keys is not None:
        _sort_groups(index, start, keys)
    return index, start


@numba.njit(cache=True, nogil=True)
def _by_group(codes, groups):  # type: ignore[no-untyped-def]
    start = np.zeros(groups + 1, np.int64)
    for code in codes:
        start[code + 1] += 1
    for g in range(groups):
        start[g + 1] += start[g]
    free = start[:-1].copy()
    index = np.empty(len(codes), np.int64)
    for row in range(len(codes)):
        code = codes[row]
        index[free[code]] = row
        free[code] += 1
    return index, start


@numba.njit(cache=True, nogil=True)
def _sort_groups(index, start, keys):  # type: ignore[no-untyped-def]
    for g in range(len(start) - 1):
        low, high = start[g], start[g + 1]
        for p in range(low + 1, high):
            if keys[index[p]] < keys[index[p - 1]]:
                rows = index[low:high].copy()
                index[low:high] = rows[np.argsort(keys[rows], kind="mergesort")]
                break


@numba.njit(cache=True, nogil=True)
def bounds_of_rows(start, rows, current):  # type: ignore[no-untyped-def]
    """Ranges of the last `rows` rows, the row itself among them where `current`; all before it when rows is 0.

    `start` as from `order_groups`; returns low and high, (rows,) int64 each.
    """
    low = np.empty(start[-1], np.int64)
    high = np.empty(start[-1], np.int64)
    for g in range(len(start) - 1):
        for p in range(start[g], start[g + 1]):
            high[p] = p + 1 if current else p
            low[p] = max(start[g], high[p] - rows) if rows > 0 else start[g]
    return low, high


@numba.njit(cache=True, nogil=True)
def bounds_of_span(start, keys, span, current):  # type: ignore[no-untyped-def]
    """Ranges of keys, in the order of the positions: (key - span, key] where `current`, else [key - span, key).

    `keys` are float64 without NaN, or uint64, whose differences are exact; `span` is of the same type, and more
    than 0 where `current`. Rows of equal keys have equal ranges, whatever order they came in. An infinite key has
    only its equals within any span.
    """
    low = np.empty(len(keys), np.int64)
    high = np.empty(len(keys), np.int64)
    for g in range(len(start) - 1):
        first, last = start[g], start[g + 1]
        a = b = first
        for p in range(first, last):
            # A key is never left behind by its equals, however small the span is beside it.
            if current:
                while keys[a] < keys[p] and keys[p] - keys[a] >= span:
                    a += 1
                while b < last and keys[b] <= keys[p]:
                    b += 1
            else:
                while keys[a] < keys[p] and keys[p] - keys[a] > span:
                    a += 1
                while keys[b] < keys[p]:
                    b += 1
            low[p], high[p] = a, b
    return low, high


@numba.njit(cache=True, nogil=True)
def sliding_count(known, low, high):  # type: ignore[no-untyped-def]
    """How many values of each range are known; (rows,) int64."""
    before = np.zeros(len(known) + 1, np.int64)
    for p in range(len(known)):
        before[p + 1] = before[p] + known[p]
    return before[high] - before[low]


@numba.njit(cache=True, nogil=True)
def sliding_sum(values, known, low, high):  # type: ignore[no-untyped-def]
    """Sums of the known values of each range, in the type of the values; 0 where there are none."""
    n = len(values)
    zero = values.dtype.type(0)
    out = np.empty(n, values.dtype)
    tail = np.empty(n + 1, values.dtype)
    middle = reached = 0
    since = zero
    for p in range(n):
        a, b = low[p], high[p]
        if a >= reached:
            middle = reached = a
            since = zero
        elif a >= middle:
            tail[reached] = zero
            for q in range(reached - 1, a - 1, -1):
                tail[q] = tail[q + 1] + values[q] if known[q] else tail[q + 1]
            middle = reached
            since = zero
        while reached < b:
            if known[reached]:
                since += values[reached]
            reached += 1
        out[p] = tail[a] + since if a < middle else since
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def _merged(n, mean, m2, k, other, other_m2):  # type: ignore[no-untyped-def]
    if n == 0:
        return k, other, other_m2
    if k == 0:
        return n, mean, m2
    total = n + k
    if not (np.isfinite(mean) and np.isfinite(other)):
        return total, mean + other, np.nan
    delta = other - mean
    return total, mean + delta * (k / total), m2 + other_m2 + delta * delta * (n * (k / total))


@numba.njit(cache=True, nogil=True)
def sliding_moments(values, known, low, high):  # type: ignore[no-untyped-def]
    """Count, mean and sum of squared deviations of the known values (float64) of each range.

    With an infinity among several values the mean is infinite, or NaN when both signs occur, and the deviations NaN.
    """
    n = len(values)
    count, mean, m2 = np.empty(n, np.int64), np.empty(n), np.empty(n)
    tail_n, tail_mean, tail_m2 = np.empty(n + 1, np.int64), np.empty(n + 1), np.empty(n + 1)
    middle = reached = 0
    since = (0, 0.0, 0.0)
    for p in range(n):
        a, b = low[p], high[p]
        if a >= reached:
            middle = reached = a
            since = (0, 0.0, 0.0)
        elif a >= middle:
            one = (0, 0.0, 0.0)
            for q in range(reached - 1, a - 1, -1):
                if known[q]:
                    one = _merged(1, values[q], 0.0, one[0], one[1], one[2])
                tail_n[q], tail_mean[q], tail_m2[q] = one
            middle = reached
            since = (0, 0.0, 0.0)
        while reached < b:
            if known[reached]:
                since = _merged(since[0], since[1], since[2], 1, values[reached], 0.0)
            reached += 1
        found = since
        if a < middle:
            found = _merged(tail_n[a], tail_mean[a], tail_m2[a], since[0], since[1], since[2])
        count[p], mean[p], m2[p] = found
    return count, mean, m2


@numba.njit(cache=True, nogil=True)
def sliding_extreme(values, known, low, high, largest):  # type: ignore[no-untyped-def]
    """The position of the smallest (or largest) known value of each range, the first of equals; -1 for none."""
    n = len(values)
    out = np.empty(n, np.int64)
    queue = np.empty(n, np.int64)
    head = tail = reached = 0
    for p in range(n):
        a, b = low[p], high[p]
        if a >= reached:
            reached = a
            head = tail = 0
        while reached < b:
            if known[reached]:
                value = values[reached]
                while tail > head and (values[queue[tail - 1]] < value if largest else values[queue[tail - 1]] > value):
                    tail -= 1
                queue[tail] = reached
                tail += 1
            reached += 1
        while head < tail and queue[head] < a:
            head += 1
        out[p] = queue[head] if head < tail else -1
    return out


@numba.njit(cache=True, nogil=True)
def shifted(start, offset):  # type: ignore[no-untyped-def]
    """The position `offset` rows before (after, when negative) each one in its group; -1 where there is none."""
    out = np.empty(start[-1], np.int64)
    for g in range(len(start) - 1):
        for p in range(start[g], start[g + 1]):
            q = p - offset
            out[p] = q if start[g] <= q < start[g + 1] else -1
    return out


@numba.njit(cache=True, nogil=True)
def ranks(start, keys):  # type: ignore[no-untyped-def]
    """Of each position in its group, from 1: its number, SQL's rank and dense rank by the ordered keys."""
    n = start[-1]
    number, rank, dense = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    for g in range(len(start) - 1):
        first = start[g]
        for p in range(first, start[g + 1]):
            number[p] = p - first + 1
            if p > first and keys[p] == keys[p - 1]:
                rank[p], dense[p] = rank[p - 1], dense[p - 1]
            else:
                rank[p] = number[p]
                dense[p] = dense[p - 1] + 1 if p > first else 1
    return number, rank, dense
