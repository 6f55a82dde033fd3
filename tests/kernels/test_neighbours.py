"""Nearest rows by comparing all, against scikit-learn's search and against the order of the distances themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from treadle.kernels.neighbours import BLOCK, nearest

POWERS = [1.0, 1.5, 2.0, 3.0, np.inf]


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize(("count", "features"), [(7, 1), (BLOCK, 4), (BLOCK + 1, 18), (3 * BLOCK - 1, 23)])
def test_equals_the_search_of_scikit_learn(p: float, count: int, features: int) -> None:
    random = np.random.default_rng(count)
    training = random.normal(size=(count, features)).astype(np.float32)
    rows = random.normal(size=(40, features)).astype(np.float32)
    metric = {"metric": "chebyshev"} if p == np.inf else {"metric": "minkowski", "p": p}
    oracle = NearestNeighbors(n_neighbors=7, algorithm="kd_tree", **metric).fit(training.astype(np.float64))
    expected, where = oracle.kneighbors(rows.astype(np.float64))
    distances, places = nearest(rows, training, 7, p)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    np.testing.assert_array_equal(places, where)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(POWERS),
    st.integers(1, 2 * BLOCK + 1),
    st.integers(1, 9),
    st.integers(1, 12),
)
@settings(max_examples=60)
def test_of_equally_near_rows_the_first_counts(seed: int, p: float, count: int, features: int, neighbours: int) -> None:
    """Values are few, so that most distances occur more than once; their sums and powers are exact."""
    random = np.random.default_rng(seed)
    training = random.integers(0, 3, (count, features)).astype(np.float32)
    rows = random.integers(0, 3, (5, features)).astype(np.float32)
    neighbours = min(neighbours, count)
    _, places = nearest(rows, training, neighbours, p)
    gaps = np.abs(rows[:, None, :].astype(np.float64) - training[None].astype(np.float64))
    summed = gaps.max(axis=2) if p == np.inf else np.round((gaps**p).sum(axis=2), 9)
    if p in (1.5,):  # 2 ** 1.5 is rounded, so that sums in another order may differ in the last bit.
        near = np.take_along_axis(summed, places, axis=1)
        np.testing.assert_allclose(near, np.sort(summed, axis=1)[:, :neighbours], atol=1e-9)
    else:
        np.testing.assert_array_equal(places, np.argsort(summed, axis=1, kind="stable")[:, :neighbours])


@given(st.integers(0, 2**32 - 1), st.sampled_from(POWERS), st.integers(1, 40))
@settings(max_examples=30)
def test_a_row_has_the_same_neighbours_whatever_is_beside_it(seed: int, p: float, features: int) -> None:
    random = np.random.default_rng(seed)
    training = random.normal(size=(300, features)).astype(np.float32)
    rows = random.normal(size=(6, features)).astype(np.float32)
    together = nearest(rows, training, 5, p)
    for i in range(len(rows)):
        alone = nearest(rows[i : i + 1], training, 5, p)
        assert np.array_equal(alone[0][0], together[0][i])
        assert np.array_equal(alone[1][0], together[1][i])
