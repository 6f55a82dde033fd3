"""Functions of all values of a group: distinct values with their counts are gathered, and these decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.operation import ROW_ID
from treadle.engine.relational.keys import codes_of, values_of
from treadle.engine.relational.states import sortable, taken, total, whole

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.relational.states import Groups

COUNT = f"{ROW_ID}:count"
FUNCTIONS = frozenset({"nunique", "mode", "median", "quantile"})


def pairs_of(frame: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """Each value of each group once, with its count; nulls left out.

    The column is called `value` after the engine's own name, so that a key can be aggregated, too.
    """
    known = frame[frame[column].notna().to_numpy(bool)]
    values = known[column]
    # Else 0.0 and -0.0 would be one value with two names.
    values = values + 0.0 if values.dtype.kind == "f" else values
    pairs = known[list(by)].assign(**{VALUE: values}).reset_index(drop=True)
    return _counted(pairs.assign(**{COUNT: whole(np.ones(len(pairs), dtype=np.int64))}), by)


VALUE = f"{ROW_ID}:value"


def merge_pairs(parts: Sequence[pd.DataFrame], by: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return parts[0] if len(parts) == 1 else _counted(pd.concat(parts, ignore_index=True), by)


def _counted(pairs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    from treadle.engine.relational.states import Groups

    codes, count = codes_of(pairs, [*by, VALUE])
    groups = Groups(codes, count)
    first = np.full(count, -1, dtype=np.int64)
    # Written back to front, so that the first row of each stays.
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    kept = pairs.iloc[first].reset_index(drop=True)
    return kept.assign(**{COUNT: total(pairs[COUNT], groups)})


def finish_pairs(pairs: pd.DataFrame, groups: Groups, function: str, q: float | None) -> pd.Series:
    """The outcome of each group; `groups` has the group of each pair."""
    counts, _ = values_of(pairs[COUNT])
    if function == "nunique":
        return whole(np.bincount(groups.codes, minlength=groups.count))
    keys, _ = sortable(pairs[VALUE])
    if function == "mode":
        # The most frequent last of its group, and of equals the smallest value.
        order = np.lexsort((-keys if keys.dtype.kind == "f" else ~keys, counts, groups.codes))
        at = np.full(groups.count, -1, dtype=np.int64)
        at[groups.codes[order]] = order
        return taken(pairs[VALUE], at)
    order = np.lexsort((keys, groups.codes))
    return _quantile(groups.codes[order], keys[order].astype("float64"), counts[order], groups.count, q or 0.0)


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
