"""Summaries: the moments and the quantile table that each kernel makes by itself, whatever was summarised before."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.kernels.counting import FEW
from treadle.kernels.moments import moments
from treadle.kernels.sketch import DEFAULT_LIMIT, key_of_float64
from treadle.kernels.summary import Summariser

ROWS = 140_000


def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    nulls = np.where(rng.random(ROWS) < 0.1, np.nan, 1.0)
    return {
        "distinct": rng.normal(size=ROWS),
        "few": rng.integers(0, 90, ROWS) * nulls,
        "as many as the hash table holds": rng.permutation(ROWS) % FEW - 7.0,
        "one more": rng.permutation(ROWS) % (FEW + 1) / 3.0,
        "few at first": np.r_[np.zeros(ROWS // 2), rng.lognormal(size=ROWS - ROWS // 2)] * nulls,
        "many at first": np.r_[rng.lognormal(size=3000), np.zeros(ROWS - 3000)],
        "zeros": np.where(rng.random(ROWS) < 0.5, -0.0, 0.0),
        "infinite": np.where(rng.random(ROWS) < 0.01, -np.inf, rng.integers(0, 9, ROWS)),
        "null": np.full(ROWS, np.nan),
        "empty": np.empty(0),
    }


@pytest.mark.parametrize("order", [1, -1])
def test_summaries_of_columns_one_after_the_other(order: int) -> None:
    summariser = Summariser(ROWS)
    for name, values in list(columns().items())[::order]:
        before = values.copy()
        found = summariser.of(values, moments=True, sketch=True)
        np.testing.assert_array_equal(values, before, err_msg=name)
        assert repr(found.moments) == repr(moments(values)), name
        keys, counts = np.unique(key_of_float64(values[~np.isnan(values)]), return_counts=True)
        assert found.sketch is not None
        shift = found.sketch.shift
        if name == "distinct":
            assert shift > 0
            assert np.unique(keys >> np.uint64(shift - 1)).size > DEFAULT_LIMIT
            keys, at = np.unique(keys >> np.uint64(shift) << np.uint64(shift), return_inverse=True)
            counts = np.bincount(at)
        else:
            assert shift == 0, name
        np.testing.assert_array_equal(found.sketch.keys, keys, err_msg=name)
        np.testing.assert_array_equal(found.sketch.counts, counts, err_msg=name)


def test_only_what_is_asked_for() -> None:
    summariser = Summariser(3)
    values = np.array([1.0, np.nan, 3.0])
    assert summariser.of(values, moments=True, sketch=False).sketch is None
    assert summariser.of(values, moments=False, sketch=True).moments is None
