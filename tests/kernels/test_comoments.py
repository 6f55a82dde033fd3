"""Correlations and associations from parts: against pandas and the definitions, for every division of the rows."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.association import (
    GroupMoments,
    Pairs,
    correlation_ratio,
    cramers_v,
    group_moments,
    merge_moments,
    merge_pairs,
    pairs,
)
from treadle.kernels.comoments import comoments, merge, merge_all

cells = st.integers(-4, 4).map(float) | st.floats(-1e3, 1e3).map(lambda x: round(x, 3)) | st.just(math.nan)
tables = st.lists(st.tuples(cells, cells, cells), max_size=30)


def expected(frame: pd.DataFrame) -> np.ndarray:
    """Pandas' pairwise correlations, NaN where a column is constant over the pair's rows (pandas gives noise)."""
    found = frame.corr(min_periods=2).to_numpy(copy=True)
    for i, one in enumerate(frame):
        for j, other in enumerate(frame):
            both = frame[[one, other]].dropna() if i != j else frame[[one]].dropna()
            if both.nunique().min() < 2 or len(both) < 2:
                found[i, j] = np.nan
    return found


@given(tables, st.lists(st.integers(0, 30), max_size=4))
@settings(max_examples=30, deadline=None)  # The first example compiles.
def test_any_division_gives_pandas_pairwise_correlations(rows: list[tuple[float, ...]], cuts: list[int]) -> None:
    matrix = np.array(rows, dtype=np.float64).reshape(-1, 3)
    parts = np.split(matrix, sorted(min(cut, len(matrix)) for cut in cuts))
    found = merge_all([comoments([*part.T]) for part in parts])
    correlations = found.correlations()
    np.testing.assert_allclose(correlations, expected(pd.DataFrame(matrix)), atol=1e-7)
    np.testing.assert_allclose(correlations, correlations.T, atol=1e-12)
    known = ~np.isnan(matrix)
    np.testing.assert_array_equal(found.count, known.T.astype(int) @ known.astype(int))


def test_large_offsets_and_many_parts() -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(size=(20_000, 4))
    base[:, 1] += base[:, 0]
    base[:, 3] = -base[:, 0]
    matrix = base + np.array([1e9, -1e9, 0.0, 5e8])
    want = np.corrcoef(base, rowvar=False)
    parts = [comoments([*part.T]) for part in np.array_split(matrix, 9)]
    for found in (comoments([*matrix.T]), merge_all(parts), functools.reduce(merge, parts[::-1])):
        np.testing.assert_allclose(found.correlations(), want, atol=1e-9)
    # The textbook formula, which this must not be, loses everything here.
    plain = matrix.T @ matrix / len(matrix) - np.outer(matrix.mean(axis=0), matrix.mean(axis=0))
    assert abs(plain[0, 1] - np.cov(base, rowvar=False)[0, 1]) > 1


def test_values_elsewhere_in_a_column_cost_no_digits() -> None:
    rng = np.random.default_rng(5)
    one, other = rng.normal(size=(2, 5000))
    one[:1000], other[:1000] = 1e12, math.nan
    other[1000:1500] = math.nan
    one[1500:1700] = math.inf
    want = np.corrcoef(one[1700:], other[1700:])[0, 1]
    for cuts in ([], [400], [1200, 3000]):
        found = merge_all([comoments([*part]) for part in np.split(np.stack([one, other]), cuts, axis=1)])
        assert found.correlations()[0, 1] == pytest.approx(want, abs=1e-12)


def test_constants_and_infinities_have_no_correlation() -> None:
    matrix = np.array([[0.1, 1.0, math.inf], [0.1, 2.0, 3.0], [0.1, 3.0, 5.0], [0.1, 4.0, -math.inf]])
    for parts in ([matrix], [matrix[:1], matrix[1:]], [matrix[:3], matrix[3:]]):
        found = merge_all([comoments([*part.T]) for part in parts])
        correlations = found.correlations()
        assert np.isnan(correlations[0]).all()
        assert correlations[1, 2] == pytest.approx(1.0)
        assert found.count[1, 2] == 2


grouped_rows = st.lists(st.tuples(st.integers(-1, 4), st.integers(-5, 5).map(float) | st.just(math.nan)), max_size=40)
KEYS = np.array([50, 40, 30, 20, 10], dtype=np.uint64)


def split_at[T](rows: list[T], cuts: list[int]) -> list[list[T]]:
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return [rows[low:high] for low, high in itertools.pairwise(edges)]


def moments_of(rows: list[tuple[int, float]], limit: int = 10) -> GroupMoments | None:
    codes = np.array([code for code, _ in rows], dtype=np.int64)
    return group_moments(KEYS, codes, np.array([value for _, value in rows], dtype=np.float64), limit)


@given(grouped_rows, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=30, deadline=None)
def test_moments_by_group_are_those_of_pandas(rows: list[tuple[int, float]], cuts: list[int]) -> None:
    found = merge_moments([moments_of(part) for part in split_at(rows, cuts)], 10)
    assert found is not None
    frame = pd.DataFrame([(int(KEYS[c]), v) for c, v in rows if c >= 0], columns=["key", "value"]).dropna()
    grouped = frame.astype({"key": "uint64", "value": "float64"}).groupby("key")["value"]
    assert found.keys.tolist() == sorted(frame["key"].unique().tolist())
    np.testing.assert_array_equal(found.count, grouped.size())
    np.testing.assert_allclose(found.mean, grouped.mean(), atol=1e-12)
    np.testing.assert_allclose(found.m2, grouped.var(ddof=0) * grouped.size(), atol=1e-9)
    spread = ((frame["value"] - frame["value"].mean()) ** 2).sum()
    ratio, groups = correlation_ratio(found), len(grouped)
    if 2 <= groups < len(frame) and frame["value"].nunique() > 1:
        within = (grouped.var(ddof=0) * grouped.size()).sum()
        adjusted = 1 - (within / (len(frame) - groups)) / (spread / (len(frame) - 1))
        assert ratio == pytest.approx(math.sqrt(max(adjusted, 0.0)), abs=1e-6)
    else:
        assert math.isnan(ratio)


def test_two_groups_give_about_the_absolute_correlation_and_chance_gives_none() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 2, 5000)
    values = rng.normal(size=5000) + codes
    table = group_moments(KEYS, codes, values, 10)
    assert table is not None
    assert correlation_ratio(table) == pytest.approx(abs(np.corrcoef(codes, values)[0, 1]), abs=1e-3)
    many = np.arange(2000, dtype=np.uint64)
    by_chance = group_moments(many, rng.integers(0, 2000, 5000), rng.normal(size=5000), 2000)
    assert by_chance is not None
    assert correlation_ratio(by_chance) < 0.2


pair_rows = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=40)


def pairs_of(rows: list[tuple[int, int]], limit: int = 25) -> Pairs | None:
    one, two = (np.array([row[side] for row in rows], dtype=np.int64) for side in (0, 1))
    return pairs((KEYS, one), (KEYS + np.uint64(1), two), limit)


@given(pair_rows, st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=30, deadline=None)
def test_pairs_and_cramers_v_are_those_of_a_crosstab(rows: list[tuple[int, int]], cuts: list[int]) -> None:
    whole = pairs_of(rows)
    found = merge_pairs([pairs_of(part) for part in split_at(rows, cuts)], 25)
    assert whole is not None
    assert found is not None
    for name in ("first", "second", "count"):
        assert getattr(found, name).tolist() == getattr(whole, name).tolist()
    known = [(one, two) for one, two in rows if one >= 0 and two >= 0]
    table = pd.crosstab(pd.Series([a for a, _ in known]), pd.Series([b for _, b in known])).to_numpy()
    v = cramers_v(found)
    want = reference_v(table) if min(table.shape) > 1 else math.nan
    assert v == pytest.approx(want, abs=1e-6, nan_ok=True)


def reference_v(table: Any) -> float:
    """Bergsma's corrected V, from chi squared."""
    n, (r, c) = table.sum(), table.shape
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = ((table - expected) ** 2 / expected).sum() / n
    corrected = max(phi2 - (r - 1) * (c - 1) / (n - 1), 0.0)
    least = min(r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)) - 1
    return math.sqrt(corrected / least) if least > 1e-9 else math.nan


def test_many_possible_pairs_are_counted_as_few() -> None:
    keys = np.arange(5000, dtype=np.uint64)
    codes = np.arange(5000, dtype=np.int64) % 7
    sparse = pairs((keys, codes), (keys, codes[::-1].copy()), 100)
    dense = pairs((keys[:7], codes), (keys[:7], codes[::-1].copy()), 100)
    assert sparse is not None
    assert dense is not None
    assert sparse.count.tolist() == dense.count.tolist()
    assert cramers_v(sparse) == pytest.approx(1.0)


def test_too_many_groups_are_given_up_in_every_division() -> None:
    rows = [(code, float(code)) for code in range(5)] * 3
    for cuts in ([], [4], [2, 9]):
        parts = split_at(rows, cuts)
        assert merge_moments([moments_of(part, 4) for part in parts], 4) is None
        assert merge_pairs([pairs_of([(c, c) for c, _ in part], 4) for part in parts], 4) is None
        assert merge_moments([moments_of(part, 5) for part in parts], 5) is not None
