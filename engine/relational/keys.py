"""Keys: groups of rows that have equal values in some columns. Null equals null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def codes_of(frame: pd.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, int]:
    """The group of each row, (rows,) int64 numbered as they first occur, and how many there are."""
    codes, groups = np.zeros(len(frame), dtype=np.int64), min(len(frame), 1)
    for i, name in enumerate(by):
        own, count = _codes(frame[name])
        if i == 0:
            codes, groups = own, count
        else:
            codes, groups = _factorized(codes * count + own)
    return codes, groups


def _codes(series: pd.Series) -> tuple[np.ndarray, int]:
    codes, levels = series.factorize(use_na_sentinel=False)
    return codes.astype(np.int64, copy=False), len(levels)


def _factorized(values: np.ndarray) -> tuple[np.ndarray, int]:
    import pandas as pd

    codes, levels = pd.factorize(values)
    return codes.astype(np.int64, copy=False), len(levels)


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
