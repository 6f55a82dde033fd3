"""Quantiles from a mergeable table that does not depend on how the data were partitioned.

A table maps each distinct value to its count. Values are held as unsigned 64-bit keys in the same
order as the values. While there are at most `limit` distinct keys the table is exact; beyond that,
the low bits of every key are dropped, as few as will do: `shift` is the smallest s for which the
number of distinct `key >> s` is at most `limit`.

Why every partitioning gives the same table. Let D(X, s) be the number of distinct `key >> s` of
the rows X; it falls (or stays) as s grows and as rows are taken away. Let S be the whole's shift,
so D(whole, S) <= limit and D(whole, s) > limit for s < S.
1. A part never needs more than the whole: D(part, S) <= D(whole, S) <= limit, so shift(part) <= S.
   The same holds for every union of parts, so for every node of every merge tree.
2. Dropping s bits and then t - s more equals dropping t bits, and the counts of the buckets that
   fall together add up. A node is therefore known exactly at every shift that is not below the
   larger shift m of its two inputs, and m <= shift(node) by point 1 (the inputs are its parts).
3. So the search for the smallest shift, started at m, finds the node's own. At the root that is
   S, with the keys and counts that one pass over all rows would have found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import Scratch, count_floats, count_keys, merge_tables

DEFAULT_LIMIT = 2**17

_SIGN = np.uint64(1 << 63)
# The keys beyond those of -inf and +inf decode to NaN; the lower end of -inf's bucket is such a key.
_LOWEST_FLOAT_KEY = 0x000F_FFFF_FFFF_FFFF


def key_of_float64(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Keys in the order of the values; -0.0 has the key of 0.0. NaN have no place: drop them first."""
    bits = (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def float64_of_key(keys: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The inverse of `key_of_float64`."""
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)


def key_of_int64(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys in the order of the values."""
    return np.asarray(values, dtype=np.int64).view(np.uint64) ^ _SIGN


def int64_of_key(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The inverse of `key_of_int64`."""
    return (keys ^ _SIGN).view(np.int64)


@dataclass(frozen=True, eq=False)
class QuantileSketch:
    """Counts by bucket of keys.

    `keys`: sorted unique uint64, each the lower end of a bucket of 2**shift keys (its low `shift`
    bits are zero); `counts`: int64, at least 1, same length; `limit`: the most buckets allowed.
    """

    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    shift: int
    limit: int

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def rank_key(self, k: int) -> int:
        """The lower end of the bucket that holds the k-th smallest value, k from 1 to `total`.

        The k-th smallest key lies in [result, result + 2**shift); it is the result when shift is 0.
        """
        cumulative = np.cumsum(self.counts)
        if cumulative.size == 0 or not 1 <= k <= int(cumulative[-1]):
            raise ValueError(f"rank {k} is not between 1 and the {self.total} values of the sketch")
        return int(self.keys[np.searchsorted(cumulative, k, side="left")])

    def count_below(self, key: int) -> int:
        """How many values lie in buckets wholly below `key`.

        Exactly the number of values less than `key` when shift is 0 or `key` is the lower end of a
        bucket; else too few by at most the values that share a bucket with `key`.
        """
        lower = np.uint64(_dropped(key, self.shift))
        return int(self.counts[: np.searchsorted(self.keys, lower, side="left")].sum())

    def quantile_float(self, q: float) -> float:
        """The q-quantile, 0 <= q <= 1, of a sketch of floats; NaN when it is empty. See `quantiles_float`."""
        return float(self.quantiles_float(np.array([q]))[0])

    def quantiles_float(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """The quantiles of a sketch of floats, each 0 <= q <= 1; NaN when it is empty.

        With shift 0, and finite values: numpy.median for q = 0.5 (the mean of the two middle values)
        and else numpy.quantile's default method 'linear', bit for bit. With shift s up to 52, each of
        the two order statistics v that are interpolated is replaced by a number u of the same sign
        and binary exponent with |u - v| < 2**(s - 52) * |v| (subnormal v: less than 2**(s - 1074)).
        The default limit keeps s <= 47 for any data, and near (bits in which values differ) - 17.
        """
        if not ((q >= 0.0) & (q <= 1.0)).all():
            raise ValueError(f"a quantile lies between 0 and 1, not {q}")
        cumulative = np.cumsum(self.counts)
        if cumulative.size == 0:
            return np.full(q.shape, math.nan)
        position = q * (cumulative[-1] - 1)
        before = np.floor(position)
        lower, upper = (
            self._floats(np.searchsorted(cumulative, np.minimum(rank, cumulative[-1]), side="left"))
            for rank in (before + 1, before + 2)
        )
        weight = position - before
        with np.errstate(over="ignore", invalid="ignore"):
            gap = upper - lower
            between = np.where(weight >= 0.5, upper - gap * (1 - weight), lower + gap * weight)
            between = np.where(q == 0.5, (lower + upper) / 2, between)
        return np.where((weight == 0.0) | (lower == upper), lower, between)

    def _floats(self, buckets: NDArray[np.int64]) -> NDArray[np.float64]:
        return float64_of_key(np.maximum(self.keys[buckets], np.uint64(_LOWEST_FLOAT_KEY)))


def sketch_keys(keys: NDArray[np.uint64], limit: int = DEFAULT_LIMIT) -> QuantileSketch:
    """The sketch of an array of keys, one a value; uint64 values such as hashes are their own keys."""
    return QuantileSketch(*count_keys(np.asarray(keys, dtype=np.uint64), _checked(limit)), limit)


def sketch_counts(keys: NDArray[np.uint64], counts: NDArray[np.int64], limit: int = DEFAULT_LIMIT) -> QuantileSketch:
    """The sketch of sorted keys, repeats allowed, each of which occurs `counts` times: `sketch_keys` when they are
    counted already."""
    starts = np.flatnonzero(np.r_[np.ones(min(len(keys), 1), dtype=bool), keys[1:] != keys[:-1]])
    distinct, total = np.asarray(keys, np.uint64)[starts], np.add.reduceat(np.asarray(counts, np.int64), starts)
    room = _checked(limit)
    # Parts of the table are sketches of their own, which merge to that of the whole.
    parts = [(distinct[i : i + room], total[i : i + room], 0) for i in range(0, max(len(distinct), 1), room)]
    return QuantileSketch(*merge_tables(parts, limit), limit)


def sketch_floats(values: NDArray[Any], limit: int = DEFAULT_LIMIT) -> QuantileSketch:
    """The sketch of a numeric array as float64; NaN are left out, infinities count."""
    numbers = np.asarray(values, dtype=np.float64)
    scratch = Scratch(len(numbers))
    numbers = numbers[~np.isnan(numbers)]
    scratch.numbers[: len(numbers)] = numbers
    return QuantileSketch(*count_floats(len(numbers), scratch, _checked(limit)), limit)


def merge(a: QuantileSketch, b: QuantileSketch) -> QuantileSketch:
    """The sketch of both parts' values; identical in every order and grouping of merges."""
    return merge_all([a, b])


def merge_all(sketches: Sequence[QuantileSketch]) -> QuantileSketch:
    """The sketch of all parts' values, from at least one part; all must have the same limit."""
    limits = sorted({sketch.limit for sketch in sketches})
    if len(limits) != 1:
        raise ValueError(f"sketches merge when all have one limit; these have {limits}")
    tables = [(sketch.keys, sketch.counts, sketch.shift) for sketch in sketches]
    return QuantileSketch(*merge_tables(tables, limits[0]), limits[0])


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"a sketch needs room for at least 1 bucket, not {limit}")
    return limit


def _dropped(key: int, shift: int) -> int:
    """`key` with its low `shift` bits cleared."""
    return int(key) >> shift << shift
