"""Statistics of one column, by its kind: gathered by part and merged.

What is kept is the same for every division of the rows, but for the last digits of sums of floats,
and for top values past the limit of their table, whose bound `treadle.kernels.frequent` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from treadle.engine.profile.texts import Texts, encoded, gather_texts, merge_texts
from treadle.engine.relational.keys import ordered_keys
from treadle.kernels import distinct, frequent, sketch, tally
from treadle.kernels import moments as moment_kernel
from treadle.kernels.digests import fold
from treadle.kernels.frequent import Frequent
from treadle.kernels.hashing import mix64
from treadle.kernels.moments import Moments
from treadle.kernels.sketch import QuantileSketch, float64_of_key, int64_of_key, key_of_int64, sketch_counts
from treadle.kernels.tally import Sample

if TYPE_CHECKING:
    import pandas as pd

SAMPLED = 2**12
"""Distinct values that are kept as a sample."""
BUDGET = 64 * 2**20
"""Bytes that the statistics of all columns may take."""
BYTES_A_LEVEL = 128
"""Of a top value: key, count, and a text of usual length."""
MICROSECONDS_A_DAY = 86_400_000_000
HASH_SEED = 0


@dataclass(frozen=True)
class Limits:
    """The most entries of a column's tables: of `quantiles` (numbers and times), and of `levels` (any kind)."""

    quantiles: int = sketch.DEFAULT_LIMIT
    levels: int = 2**14

    @classmethod
    def of(cls, columns: int) -> Limits:
        """As many as fit the budget with so many columns; powers of two."""
        share = BUDGET // max(columns, 1)
        quantiles, levels = (1 << max(share // each, 1).bit_length() - 1 for each in (16, BYTES_A_LEVEL))
        return cls(max(min(quantiles, cls.quantiles), 2**10), max(min(levels, cls.levels), 2**9))


@dataclass(frozen=True, eq=False)
class Numbers:
    """Of an int or float column. `moments` are of the finite values, `quantiles` of all: an int column's have keys of
    int64, a float column's keys of float64."""

    moments: Moments
    quantiles: QuantileSketch
    zeros: int
    negatives: int
    infinities: int


@dataclass(frozen=True, eq=False)
class Times:
    """Of a timestamp column: quantiles of its microseconds, rows by its days since 1970, rows at midnight."""

    quantiles: QuantileSketch
    days: QuantileSketch
    midnights: int


@dataclass(frozen=True, eq=False)
class Column:
    """What one pass over a column leaves behind.

    `digest` tells columns apart that differ in a row; `registers` and `sampled` are of the distinct values; `top` has
    keys of values: those of `treadle.engine.rows.ordered_keys`, or hashes of texts.
    """

    kind: str
    rows: int
    nulls: int
    digest: int
    registers: NDArray[np.uint8]
    sampled: Sample
    top: Frequent
    numbers: Numbers | None = None
    times: Times | None = None
    texts: Texts | None = None

    @property
    def known(self) -> int:
        return self.rows - self.nulls

    @property
    def quantiles(self) -> QuantileSketch | None:
        """Of the values, of numbers and times."""
        if self.numbers is not None:
            return self.numbers.quantiles
        return None if self.times is None else self.times.quantiles

    def distinct(self) -> tuple[int, bool]:
        """The number of distinct values, and whether it is exact: else it has the error of HyperLogLog."""
        if self.top.exact:
            return self.top.keys.size, True
        if self.quantiles is not None and self.quantiles.shift == 0:
            return self.quantiles.keys.size, True
        return min(max(round(distinct.estimate(self.registers)), self.top.limit + 1), self.known), False

    def most_frequent(self, n: int) -> tuple[list[tuple[int, int]], int]:
        """Keys and counts of the `n` most frequent values, and by how much the counts may be too low."""
        table = self.top
        if not table.exact and self.quantiles is not None and self.quantiles.shift == 0:
            table = Frequent(self.quantiles.keys, self.quantiles.counts, 0, self.quantiles.limit)
        return table.top(n), table.error

    def values(self, keys: Sequence[int]) -> list[str | int | float | bool]:
        """The values of keys; times as microseconds since 1970."""
        if self.texts is not None:
            return [self.texts.words[key] for key in keys]
        array = np.array(keys, dtype=np.uint64)
        if self.kind == "float":
            return float64_of_key(array).tolist()
        whole = int64_of_key(array).tolist()
        return [bool(value) for value in whole] if self.kind == "bool" else whole


@dataclass(frozen=True, eq=False)
class Cells:
    """A column of one partition as keys: of every row, and of the groups that its values make.

    `keys`, `known` (n,): a key a row, and whether the row has a value. `groups`: distinct keys; `codes` (n,): the group
    of each row, -1 for null. Groups are there for text and bool columns only.
    """

    keys: NDArray[np.uint64]
    known: NDArray[np.bool_]
    groups: NDArray[np.uint64] | None = None
    codes: NDArray[np.int64] | None = None


def gather(
    series: pd.Series, kind: str, first_row: int, rows: NDArray[np.uint64], limits: Limits
) -> tuple[Column, Cells]:
    """Of one partition's column, which begins at row `first_row`; mixes it into the digests of its `rows` (n,)."""
    texts = None
    if kind == "text":
        words, codes, hashes = encoded(series)
        known = codes >= 0
        keys = np.where(known, hashes[codes], np.uint64(0)) if hashes.size else np.zeros(codes.size, dtype=np.uint64)
        values, counts = hashes, np.bincount(codes[known], minlength=hashes.size)
        cells = Cells(keys, known, hashes, codes)
    else:
        known = series.notna().to_numpy(bool)
        keys = ordered_keys(series)
        values, counts = np.unique(keys if known.all() else keys[known], return_counts=True)
        hashes = mix64(values, HASH_SEED)
        cells = Cells(keys, known)
        if kind == "bool":
            cells = Cells(keys, known, values, np.where(known, np.searchsorted(values, keys), -1))
    top = frequent.frequent(values, counts, limits.levels)
    if kind == "text":
        texts = gather_texts(words, hashes, counts, top)
    return (
        Column(
            kind=kind,
            rows=len(series),
            nulls=int(len(series) - np.count_nonzero(known)),
            digest=int(fold(keys, known, first_row, rows)),
            registers=distinct.sketch(hashes),
            sampled=tally.sample(hashes, counts, SAMPLED),
            top=top,
            numbers=_numbers(series, kind, values, counts, limits) if kind in ("int", "float") else None,
            times=_times(values, counts, limits) if kind == "timestamp" else None,
            texts=texts,
        ),
        cells,
    )


def _numbers(
    series: pd.Series, kind: str, keys: NDArray[np.uint64], counts: NDArray[np.int64], limits: Limits
) -> Numbers:
    """Of sorted distinct keys with their counts, and of the values in the order of the rows."""
    values = series.to_numpy("float64", na_value=np.nan)
    finite = values if kind == "int" else values[np.isfinite(values)]
    distinct_values = int64_of_key(keys) if kind == "int" else float64_of_key(keys)
    with np.errstate(over="ignore", invalid="ignore"):
        moments = moment_kernel.moments(finite)
    return Numbers(
        moments=moments,
        quantiles=sketch_counts(keys, counts, limits.quantiles),
        zeros=int(counts[distinct_values == 0].sum()),
        negatives=int(counts[distinct_values < 0].sum()),
        infinities=0 if kind == "int" else int(counts[np.isinf(distinct_values)].sum()),
    )


def _times(keys: NDArray[np.uint64], counts: NDArray[np.int64], limits: Limits) -> Times:
    moments = int64_of_key(keys)
    days = moments // MICROSECONDS_A_DAY
    return Times(
        quantiles=sketch_counts(keys, counts, limits.quantiles),
        days=sketch_counts(key_of_int64(days), counts, limits.quantiles),
        midnights=int(counts[moments % MICROSECONDS_A_DAY == 0].sum()),
    )


def merge_columns(parts: Sequence[Column]) -> Column:
    """Of several disjoint parts of one column, at least one."""
    top = frequent.merge_all([part.top for part in parts])
    texts = [part.texts for part in parts if part.texts is not None]
    numbers = [part.numbers for part in parts if part.numbers is not None]
    times = [part.times for part in parts if part.times is not None]
    return Column(
        kind=parts[0].kind,
        rows=sum(part.rows for part in parts),
        nulls=sum(part.nulls for part in parts),
        digest=sum(part.digest for part in parts) % 2**64,
        registers=reduce(distinct.merge, (part.registers for part in parts)),
        sampled=tally.merge_all([part.sampled for part in parts]),
        top=top,
        numbers=_merged_numbers(numbers) if numbers else None,
        times=_merged_times(times) if times else None,
        texts=merge_texts(texts, top) if texts else None,
    )


def _merged_numbers(parts: Sequence[Numbers]) -> Numbers:
    return Numbers(
        moments=reduce(moment_kernel.merge, (part.moments for part in parts)),
        quantiles=sketch.merge_all([part.quantiles for part in parts]),
        zeros=sum(part.zeros for part in parts),
        negatives=sum(part.negatives for part in parts),
        infinities=sum(part.infinities for part in parts),
    )


def _merged_times(parts: Sequence[Times]) -> Times:
    return Times(
        quantiles=sketch.merge_all([part.quantiles for part in parts]),
        days=sketch.merge_all([part.days for part in parts]),
        midnights=sum(part.midnights for part in parts),
    )
