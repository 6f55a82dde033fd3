"""Statistics by group against NumPy on the values of each group."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.kernels import grouped

GROUPS = 4
NUMBERS = st.sampled_from([0.0, 0.25, -1.5, 3.0, 1e9 + 0.5, math.inf, -math.inf])
ROWS = st.lists(st.tuples(st.integers(0, GROUPS - 1), NUMBERS, st.booleans()), max_size=25)


def columns(rows: list[tuple[int, float, bool]]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    codes, values, known = zip(*rows, strict=True) if rows else ((), (), ())
    return np.array(codes, dtype=np.int64), np.array(values, dtype=np.float64), np.array(known, dtype=bool)


def by_group(rows: list[tuple[int, float, bool]]) -> list[NDArray[np.float64]]:
    """The known values of each group."""
    return [np.array([v for code, v, known in rows if known and code == group]) for group in range(GROUPS)]


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_each_group_has_the_statistics_of_its_values(rows: list[tuple[int, float, bool]]) -> None:
    codes, values, known = columns(rows)
    inside = by_group(rows)
    assert grouped.grouped_rows(codes, GROUPS).tolist() == np.bincount(codes, minlength=GROUPS).tolist()
    assert grouped.grouped_count(codes, known, GROUPS).tolist() == list(map(len, inside))
    count, mean, m2 = grouped.grouped_moments(codes, values, known, GROUPS)
    assert count.tolist() == list(map(len, inside))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(grouped.grouped_sum(codes, values, known, GROUPS), [np.sum(one) for one in inside])
        expected = [np.mean(one) if len(one) else np.nan for one in inside]
        np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-12)
        spread = [np.sum((one - np.mean(one)) ** 2) if len(one) else np.nan for one in inside]
        np.testing.assert_allclose(m2, spread, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.lists(st.integers(0, 25), max_size=3))
def test_moments_of_parts_merge_to_those_of_the_whole(rows: list[tuple[int, float, bool]], cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [grouped.grouped_moments(*columns(rows[a:b]), GROUPS) for a, b in itertools.pairwise(edges)]
    count, mean, m2 = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    codes = np.tile(np.arange(GROUPS), len(parts))
    with np.errstate(invalid="ignore"):
        merged = grouped.merged_moments(codes, count, mean, m2, GROUPS)
        whole = grouped.grouped_moments(*columns(rows), GROUPS)
    np.testing.assert_array_equal(merged[0], whole[0])
    np.testing.assert_allclose(merged[1], whole[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged[2], whole[2], rtol=1e-9, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_extremes_and_lasts_are_rows(rows: list[tuple[int, float, bool]]) -> None:
    codes, values, known = columns(rows)
    of_group = [[row for row in range(len(rows)) if known[row] and codes[row] == group] for group in range(GROUPS)]

    def first(candidates: list[int], best: Any) -> int:
        return next((row for row in candidates if values[row] == best(values[candidates])), -1)

    smallest = grouped.grouped_extreme(codes, values, known, GROUPS, False)
    largest = grouped.grouped_extreme(codes, values, known, GROUPS, True)
    last = grouped.grouped_last(codes, values, known, GROUPS)
    assert smallest.tolist() == [first(candidates, np.min) for candidates in of_group]
    assert largest.tolist() == [first(candidates, np.max) for candidates in of_group]
    assert last.tolist() == [first(candidates[::-1], np.max) for candidates in of_group]


def test_whole_numbers_are_added_exactly() -> None:
    values = np.array([2**62, 2**62 - 1, 1, -(2**63)])
    codes, known = np.array([0, 0, 1, 1]), np.array([True, True, False, True])
    assert grouped.grouped_sum(codes, values, known, 3).tolist() == [2**63 - 1, -(2**63), 0]


def test_a_large_offset_leaves_the_deviations_exact() -> None:
    noise = np.random.default_rng(4).normal(size=10_000)
    codes = np.arange(10_000) % 2
    _, mean, m2 = grouped.grouped_moments(codes, 1e9 + noise, np.ones(10_000, dtype=bool), 2)
    for group in range(2):
        exact = (1e9 + noise[group::2]) - 1e9
        assert mean[group] - 1e9 == pytest.approx(exact.mean(), abs=1e-6)
        assert m2[group] == pytest.approx(exact.var() * 5000, rel=1e-9)
