"""Windows over rows in groups against loops over the whole of each range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.kernels import windows

CODES = st.lists(st.integers(0, 3), max_size=25)
NUMBERS = st.sampled_from([0.0, 0.25, 0.5, -1.0, 3.0, 1e17, math.inf, -math.inf])


def laid_out(codes: list[int], keys: NDArray[Any] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    return windows.order_groups(np.array(codes, dtype=np.int64), 4, keys)


def columns(n: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Values, which of them are known, and keys with ties."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.25, -1.5, 3.0, 1e17, math.inf, -math.inf], n, p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.05, 0.05])
    keys = rng.choice([0.0, 0.5, 1.0, 2.5, 1e300, math.inf, -math.inf], n)
    return values, rng.random(n) < 0.8, keys


@settings(max_examples=25, deadline=None)
@given(CODES, st.integers(0, 99))
def test_rows_lie_by_group_and_key_and_ties_as_they_came(codes: list[int], seed: int) -> None:
    _, _, keys = columns(len(codes), seed)
    index, start = laid_out(codes, keys)
    expected = sorted(range(len(codes)), key=lambda row: (codes[row], keys[row], row))
    assert index.tolist() == expected
    assert start.tolist() == [sum(code < group for code in codes) for group in range(5)]
    assert laid_out(codes)[0].tolist() == sorted(range(len(codes)), key=lambda row: (codes[row], row))


def span_of(key: Any, other: Any, span: Any, current: bool) -> bool:
    """Whether `other` is in (key - span, key], or [key - span, key); distances are exact."""
    if other == key:
        return current
    if other > key or math.isinf(key) or math.isinf(other):
        return False
    apart = int(key) - int(other) if isinstance(key, np.integer) else float(key) - float(other)
    return bool(apart < span if current else apart <= span)


@settings(max_examples=40, deadline=None)
@given(CODES, st.integers(0, 99), st.sampled_from([1e-300, 0.5, 1.0, 2.0, 1e308]), st.booleans())
def test_ranges_of_a_span(codes: list[int], seed: int, span: float, current: bool) -> None:
    keys = columns(len(codes), seed)[2]
    index, start = laid_out(codes, keys)
    low, high = windows.bounds_of_span(start, keys[index], span, current)
    check_span(codes, keys, index, low, high, span, current)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0, 1, 2, 4, 2**62, 2**62 + 1, -(2**63), 2**63 - 1]))),
    st.sampled_from([1, 2, 2**62, 2**64 - 1]),
    st.booleans(),
)
def test_ranges_of_whole_numbers_are_exact(rows: list[tuple[int, int]], span: int, current: bool) -> None:
    codes, keys = [code for code, _ in rows], np.array([key for _, key in rows], dtype=np.int64)
    index, start = laid_out(codes, keys)
    ordered = keys[index].view(np.uint64) ^ np.uint64(2**63)
    low, high = windows.bounds_of_span(start, ordered, np.uint64(span), current)
    check_span(codes, keys, index, low, high, span, current)


def check_span(
    codes: list[int],
    keys: NDArray[Any],
    index: NDArray[Any],
    low: NDArray[Any],
    high: NDArray[Any],
    span: Any,
    current: bool,
) -> None:
    for position, row in enumerate(index):
        expected = [
            at
            for at, other in enumerate(index)
            if codes[other] == codes[row] and span_of(keys[row], keys[other], span, current)
        ]
        assert list(range(low[position], high[position])) == expected
    assert (low <= high).all()


@settings(max_examples=25, deadline=None)
@given(CODES, st.integers(0, 5), st.booleans())
def test_ranges_of_rows(codes: list[int], rows: int, current: bool) -> None:
    _, start = laid_out(codes)
    low, high = windows.bounds_of_rows(start, rows, current)
    for position, code in enumerate(sorted(codes)):
        group = [at for at, other in enumerate(sorted(codes)) if other == code]
        before = [at for at in group if at <= position - (not current)]
        assert list(range(low[position], high[position])) == (before[-rows:] if rows else before)


def ranges(codes: list[int], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ranges of one of the three kinds."""
    keys = columns(len(codes), seed)[2]
    index, start = laid_out(codes, keys)
    current = seed % 2 == 0
    if seed % 3 == 0:
        return windows.bounds_of_rows(start, seed % 4, current)  # type: ignore[no-any-return]
    return windows.bounds_of_span(start, keys[index], 1.0 + seed % 2, current)  # type: ignore[no-any-return]


@settings(max_examples=60, deadline=None)
@given(CODES, st.integers(0, 999))
def test_what_slides_is_that_of_each_range_alone(codes: list[int], seed: int) -> None:
    """Also beside infinities and values that swallow others: nothing is left of them once they are out."""
    values, known, _ = columns(len(codes), seed)
    low, high = ranges(codes, seed)
    inside = [[values[q] for q in range(a, b) if known[q]] for a, b in zip(low, high, strict=True)]
    assert windows.sliding_count(known, low, high).tolist() == list(map(len, inside))
    with np.errstate(invalid="ignore"):
        sums = [float(np.sum(one)) for one in inside]
    np.testing.assert_allclose(windows.sliding_sum(values, known, low, high), sums, rtol=1e-15)
    count, mean, m2 = windows.sliding_moments(values, known, low, high)
    assert count.tolist() == list(map(len, inside))
    for at, one in enumerate(inside):
        if one and np.isfinite(one).all():
            centre = math.fsum(one) / len(one)
            assert mean[at] == pytest.approx(centre, rel=1e-14, abs=1e-14)
            assert m2[at] == pytest.approx(math.fsum((x - centre) ** 2 for x in one), rel=1e-13)
        elif len(one) > 1:
            with np.errstate(invalid="ignore"):
                np.testing.assert_equal(mean[at], np.sum(one))
            assert math.isnan(m2[at])
    for largest, best in ((False, min), (True, max)):
        found = windows.sliding_extreme(values, known, low, high, largest)
        expected = [
            next((q for q in range(a, b) if known[q] and values[q] == best(one)), -1) if one else -1
            for one, a, b in zip(inside, low, high, strict=True)
        ]
        assert found.tolist() == expected


@settings(max_examples=20, deadline=None)
@given(CODES, st.integers(0, 999))
def test_sums_of_whole_numbers_are_exact(codes: list[int], seed: int) -> None:
    low, high = ranges(codes, seed)
    rng = np.random.default_rng(seed)
    values, known = rng.integers(-(2**57), 2**57, len(codes)), rng.random(len(codes)) < 0.7
    expected = [sum(int(values[q]) for q in range(a, b) if known[q]) for a, b in zip(low, high, strict=True)]
    assert windows.sliding_sum(values, known, low, high).tolist() == expected


def test_a_long_window_costs_a_step_a_row() -> None:
    """Every row is added twice at most: a window of half of the rows is no slower than the rows."""
    n = 400_000
    start = np.array([0, n])
    values, known = np.ones(n), np.ones(n, dtype=bool)
    for rows in (0, n // 2, 3):
        low, high = windows.bounds_of_rows(start, rows, True)
        expected = np.minimum(np.arange(1, n + 1), rows or n)
        np.testing.assert_array_equal(windows.sliding_sum(values, known, low, high), expected)
        np.testing.assert_array_equal(windows.sliding_moments(values, known, low, high)[0], expected)


@settings(max_examples=20, deadline=None)
@given(CODES, st.integers(-4, 4).filter(bool), st.integers(0, 99))
def test_shifts_and_ranks(codes: list[int], offset: int, seed: int) -> None:
    keys = columns(len(codes), seed)[2]
    index, start = laid_out(codes, keys)
    number, rank, dense = windows.ranks(start, keys[index])
    shifted = windows.shifted(start, offset)
    for position, row in enumerate(index):
        group = [at for at, other in enumerate(index) if codes[other] == codes[row]]
        assert shifted[position] == (position - offset if position - offset in group else -1)
        before = {keys[index[at]] for at in group if keys[index[at]] < keys[row]}
        assert number[position] == group.index(position) + 1
        assert rank[position] == sum(keys[index[at]] < keys[row] for at in group) + 1
        assert dense[position] == len(before) + 1


@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("span", [1e-9, 1.0, 1e300])
def test_no_index_leaves_its_array(span: float, current: bool) -> None:
    """Infinite keys, and spans too small to move a key, once led past the end: Python looks at every index."""
    keys = np.array([-np.inf, -np.inf, 0.0, 1e300, 1e300, np.inf, np.inf])
    start, known = np.array([0, 2, 7]), np.arange(7) % 3 > 0
    low, high = windows.bounds_of_span.py_func(start, keys, span, current)
    np.testing.assert_array_equal((low, high), windows.bounds_of_span(start, keys, span, current))
    for function, *rest in (
        (windows.sliding_sum,),
        (windows.sliding_moments,),
        (windows.sliding_extreme, True),
    ):
        with np.errstate(all="ignore"):
            found = function.py_func(keys, known, low, high, *rest)
        np.testing.assert_array_equal(found, function(keys, known, low, high, *rest))
