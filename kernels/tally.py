"""Counts by key: tables of sorted keys that add up, and a sample of distinct values with their counts.

A sample holds the `limit` smallest keys. Where keys are uniform hashes of values, these are a random
sample of the *distinct* values, and their counts are exact: a key among the smallest of all is among the
smallest of each part that has it. So every division and every merge tree gives the same sample, which tells
which share of the values occur once, however many they are. A sample of all keys is a table of the column.

Source: Beyer, Haas, Reinwald, Sismanis and Gemulla, "On synopses for distinct-value estimation
under multiset operations", SIGMOD 2007 (the augmented KMV synopsis).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Sample:
    """`keys`: sorted unique uint64; `counts`: int64, at least 1; `limit`: the most keys that are kept;
    `complete`: whether these are all keys there are."""

    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    limit: int
    complete: bool

    @property
    def repeated(self) -> float:
        """The share of the sampled values that occur more than once; 0.0 without values."""
        return float(np.count_nonzero(self.counts > 1) / self.counts.size) if self.counts.size else 0.0


def summed(
    keys: Sequence[NDArray[np.uint64]], counts: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sorted unique keys of several tables, in any order with repeats allowed, and the sums of their counts."""
    together = np.concatenate([np.asarray(part, dtype=np.uint64) for part in keys])
    numbers = np.concatenate([np.asarray(part, dtype=np.int64) for part in counts])
    order = np.argsort(together, kind="stable")
    together, numbers = together[order], numbers[order]
    if together.size == 0:
        return together, numbers
    starts = np.flatnonzero(np.r_[True, together[1:] != together[:-1]])
    return together[starts], np.add.reduceat(numbers, starts)


def sample(keys: NDArray[np.uint64], counts: NDArray[np.int64], limit: int) -> Sample:
    """The sample of distinct keys (n,), in any order, with their counts (n,)."""
    if limit < 1:
        raise ValueError(f"a sample needs room for at least 1 value, not {limit}")
    keys, counts = np.asarray(keys, dtype=np.uint64), np.asarray(counts, dtype=np.int64)
    complete = keys.size <= limit
    if not complete:
        smallest = np.argpartition(keys, limit)[:limit]
        keys, counts = keys[smallest], counts[smallest]
    return Sample(*summed([keys], [counts]), limit, complete)


def merge_all(parts: Sequence[Sample]) -> Sample:
    """The sample of all parts' rows, from at least one part; all must have the same limit."""
    limits = sorted({part.limit for part in parts})
    if len(limits) != 1:
        raise ValueError(f"samples merge when all have one limit; these have {limits}")
    keys, counts = summed([part.keys for part in parts], [part.counts for part in parts])
    complete = all(part.complete for part in parts) and keys.size <= limits[0]
    return Sample(keys[: limits[0]], counts[: limits[0]], limits[0], complete)
