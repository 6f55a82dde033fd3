"""Keys: groups of rows that have equal values in some columns. Null equals null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def codes_of(frame: pd.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, int]:
    """The group of each row, (rows,) int64 numbered as they first occur, and how many there are."""
    codes, groups = np.zeros(len(frame), dtype=np.int64), min(len(frame), 1)
    for i, name in enumerate(by):
        own, count = codes_of_values(frame[name])
        codes, groups = (own, count) if i == 0 else numbered(codes * count + own)
    return codes, groups


def codes_of_values(series: pd.Series) -> tuple[np.ndarray, int]:
    """The same for one column; null is a value of its own, and 0.0 is -0.0."""
    if series.dtype.kind in "OU":
        codes, levels = series.factorize(use_na_sentinel=False)
        return codes.astype(np.int64, copy=False), len(levels)
    values, known = values_of(series)
    if values.dtype.kind == "f":
        values = (values + 0.0).view(np.int64)
    if known.all():
        return numbered(values)
    # Numbers of the values from 1, whatever stands for a null; then once more, with 0 for null.
    codes, _ = numbered(values)
    return numbered(np.where(known, codes + 1, 0))


def numbered(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Whole numbers as the numbers of distinct ones, in the order in which they first occur, and their count."""
    from treadle.kernels.grouped import number_keys

    codes, first = number_keys(keys)
    return codes, len(first)


def repeats(frame: pd.DataFrame, on: Sequence[str]) -> int:
    """How many keys occur more than once; a key with a null matches nothing, and is none."""
    keys = frame[list(on)].dropna()
    return len(keys[keys.duplicated()].drop_duplicates())


def matches(series: pd.Series, keys: pd.Index) -> np.ndarray:
    """The position of each value among distinct keys, (rows,) int64; -1 for null and for what is not there."""
    if series.dtype.kind in "OU":
        return keys.get_indexer(series)  # type: ignore[arg-type]
    values, known = values_of(series)
    found = keys.get_indexer(values)  # type: ignore[arg-type]
    return found if known.all() else np.where(known, found, -1)


def taken(series: pd.Series, rows: np.ndarray) -> pd.Series:
    """The values of some rows, null for -1, in the column's own type."""
    import pandas as pd

    return pd.Series(series.array.take(rows, allow_fill=True))


def with_columns(frame: pd.DataFrame, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """The frame with columns added, or replaced in their places; all at once, without a copy of the others."""
    import pandas as pd

    every = {str(name): frame[name] for name in frame.columns}
    every.update((name, series.set_axis(frame.index)) for name, series in columns.items())
    return pd.DataFrame(every, copy=False)


def index_of(series: pd.Series) -> pd.Index | None:
    """The values of a column for `matches`; None where they repeat, are null, or of a kind that it does not take."""
    import pandas as pd

    if series.dtype.kind not in "iuOU" or series.isna().any():
        return None
    keys = pd.Index(series if series.dtype.kind in "OU" else values_of(series)[0])
    return keys if keys.is_unique else None


def values_of(series: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """A column as numbers, float64 for float and else int64 (times in microseconds), and which are not null.

    What stands for a null is any number.
    """
    known = series.notna().to_numpy(bool)
    if series.dtype.kind == "f":
        return series.to_numpy("float64"), known
    if series.dtype.kind == "M":
        return series.to_numpy("datetime64[us]").view("int64"), known
    return series.to_numpy("int64", na_value=0), known


def kind_of(series: pd.Series) -> str:
    """What a spec calls the type of a column: int, float, bool, text or timestamp."""
    from treadle.engine.backend import kinds_of

    (kind,) = kinds_of(series.to_frame()).values()
    return kind


def hash_keys(series: pd.Series, seed: int) -> np.ndarray:
    """A 64-bit key of every value, uniform, the same on every machine and for every partitioning."""
    import pandas as pd

    from treadle.kernels.hashing import mix64

    if series.dtype == "str":
        raw = pd.util.hash_array(series.to_numpy(dtype=object, na_value=""), categorize=True)
    else:
        raw = ordered_keys(series)
    return mix64(raw, seed)


def ordered_keys(series: pd.Series) -> np.ndarray:
    """Numbers and times as uint64 in the same order."""
    from treadle.kernels.sketch import key_of_float64, key_of_int64

    if series.dtype.kind == "f":
        return key_of_float64(series.to_numpy("float64"))
    if series.dtype.kind == "M":
        return key_of_int64(series.to_numpy("datetime64[us]").astype("int64"))
    return key_of_int64(series.to_numpy("int64", na_value=np.iinfo("int64").min))


def hash_rows(frame: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """One 64-bit key of several columns; uniform, and equal for rows with equal values."""
    from treadle.kernels.hashing import mix64

    keys = np.zeros(len(frame), dtype=np.uint64)
    for i, name in enumerate(by):
        keys = mix64(keys + hash_keys(frame[name], i), i + 1)
    return keys
