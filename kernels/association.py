"""How far a column's groups tell another column: tables by group that merge, and one number of each.

A group is named by a 64-bit key (a hash of its value). A table that would have more groups than its
limit is given up for good, as None: as the groups of a part are groups of the whole, every division
of the rows gives up, or none does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.tally import summed

_DENSE = 2**22
"""Possible pairs that are counted in an array of all of them; more are sorted."""


@dataclass(frozen=True, eq=False)
class GroupMoments:
    """Moments of a number by group: `keys` sorted unique uint64; `count` int64, at least 1; `mean`;
    `m2`, the sum of squared deviations from the group's mean. All have one entry a group."""

    keys: NDArray[np.uint64]
    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows by pairs of groups: `first` and `second` uint64 keys, sorted by both; `count` int64, at least 1."""

    first: NDArray[np.uint64]
    second: NDArray[np.uint64]
    count: NDArray[np.int64]


def group_moments(
    keys: NDArray[np.uint64], codes: NDArray[np.int64], values: NDArray[Any], limit: int
) -> GroupMoments | None:
    """Moments of values (n,) by group: row i is in the group `keys[codes[i]]`, in none where the code is negative.

    `keys` are distinct. Values that are not finite are left out, and so are groups without values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    kept = np.isfinite(numbers) & (codes >= 0)
    if not kept.all():
        codes, numbers = codes[kept], numbers[kept]
    count = np.bincount(codes, minlength=keys.size)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.bincount(codes, weights=numbers, minlength=keys.size) / np.maximum(count, 1)
        apart = numbers - mean[codes]
        m2: NDArray[Any] = np.bincount(codes, weights=apart * apart, minlength=keys.size)
    there = np.flatnonzero(count)
    there = there[np.argsort(keys[there])]
    if there.size > limit:
        return None
    return GroupMoments(keys[there], count[there], mean[there], m2[there])


def merge_moments(parts: Sequence[GroupMoments | None], limit: int) -> GroupMoments | None:
    """Of disjoint parts together, at least one; equal for every order and grouping to rounding.

    Source: Chan, Golub and LeVeque (1979), equation 2.1, for all parts at once.
    """
    tables = [part for part in parts if part is not None]
    if len(tables) < len(parts):
        return None
    every = np.concatenate([table.keys for table in tables])
    keys, groups = np.unique(every, return_inverse=True)
    if keys.size > limit:
        return None
    counts = np.concatenate([table.count for table in tables])
    means = np.concatenate([table.mean for table in tables])
    count = np.bincount(groups, weights=counts, minlength=keys.size)
    with np.errstate(over="ignore", invalid="ignore"):
        # From one of the group's means, so that equal means merge without rounding.
        base = np.zeros(keys.size)
        base[groups[::-1]] = means[::-1]
        mean = base + np.bincount(groups, weights=(means - base[groups]) * counts, minlength=keys.size) / count
        apart = means - mean[groups]
        inside = np.concatenate([table.m2 for table in tables])
        m2: NDArray[Any] = np.bincount(groups, weights=inside + apart * apart * counts, minlength=keys.size)
    return GroupMoments(keys, count.astype(np.int64), mean, m2)


def correlation_ratio(table: GroupMoments) -> float:
    """The root of the share of the number's spread that lies between the groups, less what chance would put there.

    0 when the groups' means differ no more than by chance, 1 when the group decides the number; NaN with fewer than
    two groups, without spread, or without a group of two. Source: Kelley, "An unbiased correlation ratio measure",
    PNAS 21 (1935): epsilon squared, here not below 0.
    """
    rows, groups = int(table.count.sum()), table.keys.size
    if not 2 <= groups < rows:
        return math.nan
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        weights = table.count / rows
        centre = float(np.dot(weights, table.mean))
        within = float(table.m2.sum())
        total = float(np.dot(table.count, (table.mean - centre) ** 2)) + within
    if not 0.0 < total < math.inf:
        return math.nan
    return math.sqrt(max(1.0 - (within / total) * (rows - 1) / (rows - groups), 0.0))


def pairs(
    first: tuple[NDArray[np.uint64], NDArray[np.int64]],
    second: tuple[NDArray[np.uint64], NDArray[np.int64]],
    limit: int,
) -> Pairs | None:
    """Rows by pair of groups; a side is distinct keys, and the code of each row (n,), negative for none."""
    (keys, codes), (other_keys, other_codes) = first, second
    kept = (codes >= 0) & (other_codes >= 0)
    if not kept.all():
        codes, other_codes = codes[kept], other_codes[kept]
    one = np.bincount(codes, minlength=keys.size)
    if np.count_nonzero(one) > limit:
        return None
    width = max(other_keys.size, 1)
    both = codes * width + other_codes
    if one.size * width <= _DENSE:
        count = np.bincount(both)
        found = np.flatnonzero(count)
        count = count[found]
    else:
        found, count = np.unique(both, return_counts=True)
    if found.size > limit:
        return None
    first_keys, second_keys = keys[found // width], other_keys[found % width]
    order = np.lexsort((second_keys, first_keys))
    return Pairs(first_keys[order], second_keys[order], count[order].astype(np.int64))


def merge_pairs(parts: Sequence[Pairs | None], limit: int) -> Pairs | None:
    """Of disjoint parts together, at least one; the same for every order and grouping."""
    tables = [part for part in parts if part is not None]
    if len(tables) < len(parts):
        return None
    rows = np.concatenate([np.stack([table.first, table.second], axis=1) for table in tables])
    counts = np.concatenate([table.count for table in tables])
    found, groups = np.unique(rows, axis=0, return_inverse=True)
    if len(found) > limit:
        return None
    count = np.zeros(len(found), dtype=np.int64)
    np.add.at(count, groups, counts)
    return Pairs(found[:, 0], found[:, 1], count)


def cramers_v(table: Pairs) -> float:
    """Cramér's V of two groupings, less what chance would give; NaN when one is constant or hardly repeats.

    0 when they are independent, 1 when one decides the other. Source: Bergsma, "A bias-correction for Cramér's V and
    Tschuprow's T", Journal of the Korean Statistical Society 42 (2013).
    """
    rows = int(table.count.sum())
    first, one = summed([table.first], [table.count])
    second, two = summed([table.second], [table.count])
    r, c = first.size, second.size
    if min(r, c) < 2:
        return math.nan
    shares = table.count / one[np.searchsorted(first, table.first)] / two[np.searchsorted(second, table.second)]
    # Chi squared over the rows is the sum of n_ij**2 / (n_i n_j), less 1.
    squared = max(float(np.dot(table.count, shares)) - 1.0 - (r - 1) * (c - 1) / (rows - 1), 0.0)
    least = min(r - (r - 1) ** 2 / (rows - 1), c - (c - 1) ** 2 / (rows - 1)) - 1.0
    return math.sqrt(squared / least) if least > 1e-9 else math.nan
