"""Functions of all values of a group: distinct values with their counts are gathered, and these decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.relational.keys import codes_of_values, numbered, taken
from treadle.engine.relational.states import sortable, whole

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.relational.states import Groups

GROUP, VALUE, COUNT = "group", "value", "count"
FUNCTIONS = frozenset({"nunique", "mode", "median", "quantile"})


def pairs_of(series: pd.Series, groups: Groups, counts: np.ndarray | None = None) -> pd.DataFrame:
    """Each value of each group once, nulls left out: the number of its group, the value, and how many rows have it.

    `counts` says for how many rows each value stands; one each when absent.
    """
    import pandas as pd

    from treadle.kernels.grouped import first_and_count, grouped_sum

    known = series.notna().to_numpy(bool)
    levels, count = codes_of_values(series)
    codes, pairs = numbered(np.where(known, groups.codes * count + levels, -1))
    rows, number = first_and_count(codes, pairs)
    if counts is not None:
        number = grouped_sum(codes, counts, np.ones(len(codes), dtype=bool), pairs)
    kept = known[rows]
    values = series.iloc[rows[kept]].reset_index(drop=True)
    # Else 0.0 and -0.0 would be one value with two names.
    values = values + 0.0 if values.dtype.kind == "f" else values
    return pd.DataFrame({GROUP: groups.codes[rows[kept]], VALUE: values, COUNT: number[kept]})


def merge_pairs(parts: Sequence[pd.DataFrame], groups: Sequence[np.ndarray], count: int) -> pd.DataFrame:
    """Pairs of several parts as one; `groups` are the numbers that the groups of each part have together."""
    import pandas as pd

    from treadle.engine.relational.states import Groups

    codes = [numbers[part[GROUP].to_numpy()] for part, numbers in zip(parts, groups, strict=True)]
    every = pd.concat(list(parts), ignore_index=True)
    return pairs_of(every[VALUE], Groups(np.concatenate(codes), count), every[COUNT].to_numpy())


def finish_pairs(pairs: pd.DataFrame, count: int, function: str, q: float | None) -> pd.Series:
    """The outcome of each of `count` groups."""
    counts, codes = pairs[COUNT].to_numpy(), pairs[GROUP].to_numpy()
    if function == "nunique":
        return whole(np.bincount(codes, minlength=count))
    keys, _ = sortable(pairs[VALUE])
    if function == "mode":
        # The most frequent last of its group, and of equals the smallest value.
        order = np.lexsort((-keys if keys.dtype.kind == "f" else ~keys, counts, codes))
        at = np.full(count, -1, dtype=np.int64)
        at[codes[order]] = order
        return taken(pairs[VALUE], at)
    order = np.lexsort((keys, codes))
    return _quantile(codes[order], keys[order].astype("float64"), counts[order], count, q or 0.0)


def _quantile(codes: np.ndarray, values: np.ndarray, counts: np.ndarray, groups: int, q: float) -> pd.Series:
    """NumPy's default method, linear, of sorted values that stand for `counts` rows each."""
    import pandas as pd

    start = np.searchsorted(codes, np.arange(groups + 1))
    before = np.concatenate([[0], np.cumsum(counts)])
    rows = before[start[1:]] - before[start[:-1]]
    position = q * np.maximum(rows - 1, 0)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, np.maximum(rows - 1, 0))
    found = []
    for rank in (lower, upper):
        at = np.searchsorted(before, before[start[:-1]] + rank, side="right") - 1
        found.append(values[np.minimum(at, len(values) - 1)] if len(values) else np.full(groups, np.nan))
    weight = position - lower
    low, high = found
    with np.errstate(invalid="ignore", over="ignore"):
        apart = high - low
        # Numbers too far apart to be subtracted, infinities among them, are weighed one by one.
        between = np.where(np.isfinite(apart), low + apart * weight, low * (1 - weight) + high * weight)
    between = np.where(weight == 0, low, np.where(low == high, low, between))
    return pd.Series(np.where(rows > 0, between, np.nan))
