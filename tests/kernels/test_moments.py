"""Moments: agreement with NumPy, and the laws of merging."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.kernels.moments import EMPTY, Moments, column_moments, merge, moments

numbers = st.floats(-1e6, 1e6) | st.just(math.nan) | st.integers(-3, 3).map(float)
columns = st.lists(numbers, max_size=40)


def assert_close(found: Moments, expected: Moments, scale: float) -> None:
    assert (found.count, found.nulls) == (expected.count, expected.nulls)
    assert (found.minimum, found.maximum) == (expected.minimum, expected.maximum)
    assert found.mean == pytest.approx(expected.mean, rel=1e-9, abs=1e-12 * scale)
    assert found.m2 == pytest.approx(expected.m2, rel=1e-9, abs=1e-12 * scale * scale)


def scale_of(values: NDArray[Any]) -> float:
    return float(np.nanmax(np.abs(values), initial=1e-300))


@settings(deadline=None)  # The first example compiles.
@given(columns, st.lists(st.integers(0, 40), max_size=5))
def test_any_split_merges_to_the_whole(values: list[float], cuts: list[int]) -> None:
    whole = np.array(values, dtype=np.float64)
    parts = np.split(whole, sorted(min(cut, whole.size) for cut in cuts))
    merged = functools.reduce(merge, map(moments, parts))
    assert_close(merged, moments(whole), scale_of(whole))


@settings(deadline=None)  # The first example compiles.
@given(columns, columns)
def test_merging_is_commutative_bit_for_bit(a: list[float], b: list[float]) -> None:
    one, other = moments(np.array(a)), moments(np.array(b))
    assert merge(one, other) == merge(other, one)
    assert merge(one, EMPTY) == one == merge(EMPTY, one)


@settings(deadline=None)  # The first example compiles.
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.integers(0, 3))
def test_agrees_with_numpy(values: list[float], nulls: int) -> None:
    column = np.array(values + [math.nan] * nulls)
    found = moments(column)
    scale = scale_of(column)
    assert (found.count, found.nulls) == (len(values), nulls)
    assert found.mean == pytest.approx(np.nanmean(column), rel=1e-9, abs=1e-12 * scale)
    assert found.variance == pytest.approx(np.nanvar(column), rel=1e-9, abs=1e-12 * scale**2)
    assert found.std == pytest.approx(np.nanstd(column), rel=1e-6, abs=1e-6 * scale)
    assert (found.minimum, found.maximum) == (np.nanmin(column), np.nanmax(column))


def test_small_noise_on_a_large_offset() -> None:
    noise = np.random.default_rng(1).normal(size=100_000)
    column = 1e9 + noise
    found = moments(column)
    exact = float(np.var(column - 1e9))
    assert found.variance == pytest.approx(exact, rel=1e-9)
    merged = functools.reduce(merge, map(moments, np.array_split(column, 7)))
    assert merged.variance == pytest.approx(exact, rel=1e-9)
    assert merged.mean == pytest.approx(1e9 + float((column - 1e9).mean()), rel=1e-15)
    # The textbook formula, which this must not be, loses everything here.
    assert abs(float((column**2).mean() - column.mean() ** 2) - exact) > 1


@pytest.mark.parametrize("rows", [3, 4097])
def test_the_rounding_of_the_first_mean_is_corrected(rows: int) -> None:
    # Around 2**52 neighbouring float64 are 1 apart, so a mean of whole numbers is rounded coarsely.
    extra = np.random.default_rng(3).integers(0, 4, rows)
    found = moments(2.0**52 + extra)
    assert found.m2 == pytest.approx(rows * np.var(extra), rel=1e-12)
    assert found.mean == 2.0**52 + round(float(extra.mean()))


def test_without_values() -> None:
    assert moments(np.array([])) == EMPTY == Moments(0, 0, 0.0, 0.0, math.inf, -math.inf)
    nothing = moments(np.array([math.nan, math.nan]))
    assert nothing == Moments(0, 2, 0.0, 0.0, math.inf, -math.inf)
    assert math.isnan(nothing.variance)
    assert math.isnan(nothing.std)
    assert merge(nothing, moments(np.array([3.0]))) == Moments(1, 2, 3.0, 0.0, 3.0, 3.0)


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1.0, math.inf], math.inf), ([-math.inf, 2.0, 3.0], -math.inf), ([math.inf, math.inf], math.inf)],
)
def test_infinities_are_values(values: list[float], mean: float) -> None:
    found = moments(np.array(values))
    assert (found.count, found.nulls, found.mean) == (len(values), 0, mean)
    assert math.isnan(found.m2)
    assert (found.minimum, found.maximum) == (min(values), max(values))
    merged = merge(moments(np.array(values[:1])), moments(np.array(values[1:])))
    assert (merged.count, merged.mean) == (found.count, found.mean)
    assert math.isnan(merged.m2)


def test_infinities_of_both_signs_have_no_mean() -> None:
    found = moments(np.array([math.inf, 1.0, -math.inf]))
    assert found.count == 3
    assert math.isnan(found.mean)
    assert math.isnan(found.m2)
    merged = merge(moments(np.array([math.inf])), moments(np.array([1.0, -math.inf])))
    assert math.isnan(merged.mean)


def test_constants_have_no_variance_at_all() -> None:
    parts = [moments(np.full(n, 0.1)) for n in (3, 1, 7)]
    assert functools.reduce(merge, parts) == Moments(11, 0, 0.1, 0.0, 0.1, 0.1)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("width", [0, 1, 16, 37])
def test_columns_of_a_matrix(order: Any, width: int) -> None:
    matrix = np.random.default_rng(2).normal(size=(50, width)).astype(np.float32)
    matrix[3:9, ::2] = np.nan
    laid_out = np.array(matrix, order=order)
    assert column_moments(laid_out) == [moments(matrix[:, j]) for j in range(width)]


def test_integers_are_numbers_too() -> None:
    assert moments(np.array([1, 2, 3])) == Moments(3, 0, 2.0, 2.0, 1.0, 3.0)
