"""The most frequent values of a column, from a bounded table that merges: Misra and Gries.

The table holds at most `limit` values. While there are no more distinct values than that, its
counts are exact. Beyond, the largest count that finds no room is taken off all counts, and values
that come to nothing are forgotten: every count is then too low by at most `error`, and a value
that is not in the table occurs at most `error` times. However the rows were divided and merged,
`error * (limit + 1)` is at most the number of rows less the counts that are kept, so that every
value of more than rows / (limit + 1) rows is in the table. Which others are, and `error` itself,
depend on the division; whether the table is exact does not.

Source: Misra and Gries, "Finding repeated elements", Science of Computer Programming 2 (1982);
the merge is that of Agarwal et al., "Mergeable summaries", ACM TODS 38 (2013), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.tally import summed


@dataclass(frozen=True, eq=False)
class Frequent:
    """`keys`: sorted unique uint64; `counts`: int64, at least 1, each between the true count less
    `error` and the true count; `limit`: the most keys that are kept."""

    keys: NDArray[np.uint64]
    counts: NDArray[np.int64]
    error: int
    limit: int

    @property
    def exact(self) -> bool:
        """Whether all values are here with their true counts."""
        return self.error == 0

    def top(self, n: int) -> list[tuple[int, int]]:
        """The `n` most frequent keys with their counts, the most frequent first, of equals the smallest key."""
        order = np.lexsort((self.keys, -self.counts))[:n]
        return list(zip(self.keys[order].tolist(), self.counts[order].tolist(), strict=True))


def frequent(keys: NDArray[np.uint64], counts: NDArray[np.int64], limit: int) -> Frequent:
    """The table of distinct keys (n,), in any order, with their counts (n,)."""
    if limit < 1:
        raise ValueError(f"a table needs room for at least 1 value, not {limit}")
    return _trimmed(*summed([keys], [counts]), 0, limit)


def merge_all(parts: Sequence[Frequent]) -> Frequent:
    """The table of all parts' rows, from at least one part; all must have the same limit."""
    limits = sorted({part.limit for part in parts})
    if len(limits) != 1:
        raise ValueError(f"tables merge when all have one limit; these have {limits}")
    keys, counts = summed([part.keys for part in parts], [part.counts for part in parts])
    return _trimmed(keys, counts, sum(part.error for part in parts), limits[0])


def _trimmed(keys: NDArray[np.uint64], counts: NDArray[np.int64], error: int, limit: int) -> Frequent:
    if keys.size > limit:
        surplus = int(np.partition(counts, -limit - 1)[-limit - 1])
        kept = counts > surplus
        keys, counts, error = keys[kept], counts[kept] - surplus, error + surplus
    return Frequent(keys, counts, error, limit)
