"""Functions of a group that are estimated: sketches stand for its values, and are small however many rows there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.encoders.columns import arrow, texts
from treadle.engine.relational.states import whole

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from treadle.engine.relational.states import Groups

FUNCTIONS = frozenset({"approx_nunique"})
PRECISION = 12
"""Bits: a group has at most 4096 registers, and its number a standard error of 1.6 %."""
ENTRY = "entry"
"""A register of a group with its rank, as `treadle.kernels.distinct` has them."""


def sketches_of(series: pd.Series, groups: Groups) -> pd.DataFrame:
    """The registers that the values of each group fill, nulls left out."""
    from treadle.kernels.distinct import entries_of

    codes = np.where(series.notna().to_numpy(bool), groups.codes, -1)
    return _table(entries_of(_hashes(series), codes, groups.count, PRECISION))


def merge_sketches(parts: Sequence[pd.DataFrame], groups: Sequence[np.ndarray]) -> pd.DataFrame:
    """Registers of several parts as those of all rows; `groups` are the numbers that their groups have together."""
    from treadle.kernels.distinct import RANK_BITS, merge_entries

    shift = np.uint64(PRECISION + RANK_BITS)
    found = []
    for part, numbers in zip(parts, groups, strict=True):
        entries = part[ENTRY].to_numpy()
        own = entries >> shift
        found.append(entries - (own << shift) + (numbers[own.astype(np.int64)].astype(np.uint64) << shift))
    return _table(merge_entries(np.concatenate(found)))


def finish_sketches(part: pd.DataFrame, count: int) -> pd.Series:
    """How many distinct values each of `count` groups has, about."""
    from treadle.kernels.distinct import estimate_entries

    return whole(np.rint(estimate_entries(part[ENTRY].to_numpy(), count, PRECISION)).astype(np.int64))


def _hashes(series: pd.Series) -> NDArray[np.uint64]:
    """Uniform, and equal for equal values."""
    from treadle.engine.relational.keys import hash_keys
    from treadle.kernels.hashing import mix64
    from treadle.kernels.texts import hash_texts

    if series.dtype.kind in "OU":
        return mix64(hash_texts(texts(arrow(series))), 0)
    return hash_keys(series, 0)


def _table(entries: NDArray[np.uint64]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({ENTRY: entries})
