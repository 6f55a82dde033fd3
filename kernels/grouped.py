"""Statistics of a column by group, one pass each over rows whose groups are numbered.

`codes` is (rows,) int64, the group of each row from 0; `known` is (rows,) bool, False for nulls, which are
left out; `groups` is their number. Results are (groups,) host arrays.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def grouped_rows(codes, groups):  # type: ignore[no-untyped-def]
    """Rows of each group, int64."""
    count = np.zeros(groups, np.int64)
    for code in codes:
        count[code] += 1
    return count


@numba.njit(cache=True, nogil=True)
def number_keys(keys):  # type: ignore[no-untyped-def]
    """Numbers distinct int64 keys as they first occur: the number of each row's key, and the first row of each key.

    Open addressing with linear probing over a table of rows, at most half full; Fibonacci hashing (Knuth, The Art
    of Computer Programming 3, section 6.4).
    """
    bits = 4
    while (1 << bits) < 2 * len(keys):
        bits += 1
    mask, shift = (1 << bits) - 1, np.uint64(64 - bits)
    table = np.full(1 << bits, -1, np.int64)
    codes = np.empty(len(keys), np.int64)
    first = np.empty(len(keys), np.int64)
    count = 0
    for row in range(len(keys)):
        key = keys[row]
        slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
        while table[slot] >= 0 and keys[first[table[slot]]] != key:
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = count
            first[count] = row
            count += 1
        codes[row] = table[slot]
    return codes, first[:count].copy()


@numba.njit(cache=True, nogil=True)
def first_and_count(codes, groups):  # type: ignore[no-untyped-def]
    """The first row of each group, and how many rows it has; int64."""
    first, count = np.empty(groups, np.int64), np.zeros(groups, np.int64)
    for row in range(len(codes)):
        if count[codes[row]] == 0:
            first[codes[row]] = row
        count[codes[row]] += 1
    return first, count


@numba.njit(cache=True, nogil=True)
def grouped_count(codes, known, groups):  # type: ignore[no-untyped-def]
    """Known values of each group, int64."""
    count = np.zeros(groups, np.int64)
    for row in range(len(codes)):
        count[codes[row]] += known[row]
    return count


@numba.njit(cache=True, nogil=True)
def grouped_sum(codes, values, known, groups):  # type: ignore[no-untyped-def]
    """Sums in the type of the values (int64 wraps around), 0 for groups without any."""
    total = np.zeros(groups, values.dtype)
    for row in range(len(codes)):
        if known[row]:
            total[codes[row]] += values[row]
    return total


@numba.njit(cache=True, nogil=True)
def grouped_moments(codes, values, known, groups):  # type: ignore[no-untyped-def]
    """Count, mean and sum of squared deviations of float64 values; NaN means, and deviations, without values.

    The corrected two-pass algorithm, as `treadle.kernels.moments.moments`. With infinities among the values the
    mean is infinite, or NaN when both signs occur, and the deviations are NaN.
    """
    count = np.zeros(groups, np.int64)
    mean, m2, drift = np.zeros(groups), np.zeros(groups), np.zeros(groups)
    for row in range(len(codes)):
        if known[row]:
            count[codes[row]] += 1
            mean[codes[row]] += values[row]
    for g in range(groups):
        mean[g] = mean[g] / count[g] if count[g] > 0 else np.nan
    for row in range(len(codes)):
        if known[row]:
            g = codes[row]
            deviation = values[row] - mean[g]
            drift[g] += deviation
            m2[g] += deviation * deviation
    for g in range(groups):
        if count[g] > 0:
            m2[g] = max(m2[g] - drift[g] * drift[g] / count[g], 0.0) if np.isfinite(mean[g]) else np.nan
            if np.isfinite(mean[g]):
                mean[g] += drift[g] / count[g]
        else:
            m2[g] = np.nan
    return count, mean, m2


@numba.njit(cache=True, nogil=True)
def merged_moments(codes, counts, means, m2s, groups):  # type: ignore[no-untyped-def]
    """Moments of parts, (parts,) each, as those of their groups; see `grouped_moments`.

    Source: Chan, Golub and LeVeque, STAN-CS-79-773 (1979), equation 2.1.
    """
    count = np.zeros(groups, np.int64)
    mean, m2 = np.full(groups, np.nan), np.full(groups, np.nan)
    for part in range(len(codes)):
        g, k = codes[part], counts[part]
        if k == 0:
            continue
        if count[g] == 0:
            count[g], mean[g], m2[g] = k, means[part], m2s[part]
            continue
        n = count[g] + k
        if np.isfinite(mean[g]) and np.isfinite(means[part]):
            delta = means[part] - mean[g]
            m2[g] += m2s[part] + delta * delta * (count[g] * (k / n))
            mean[g] += delta * (k / n)
        else:
            mean[g] += means[part]
            m2[g] = np.nan
        count[g] = n
    return count, mean, m2


@numba.njit(cache=True, nogil=True)
def grouped_extreme(codes, values, known, groups, largest):  # type: ignore[no-untyped-def]
    """The row of the smallest (or largest) known value of each group, the first of equals; -1 for none."""
    at = np.full(groups, -1, np.int64)
    for row in range(len(codes)):
        if known[row]:
            g = codes[row]
            best = at[g]
            if best < 0 or (values[row] > values[best] if largest else values[row] < values[best]):
                at[g] = row
    return at


@numba.njit(cache=True, nogil=True)
def grouped_last(codes, keys, known, groups):  # type: ignore[no-untyped-def]
    """The known row with the largest key of each group, the last of equals; -1 for none."""
    at = np.full(groups, -1, np.int64)
    for row in range(len(codes)):
        if known[row]:
            g = codes[row]
            if at[g] < 0 or keys[row] >= keys[at[g]]:
                at[g] = row
    return at
