"""Quantile sketches: the same table for every partitioning, and NumPy's quantiles while it is exact."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels import reference
from treadle.kernels.sketch import (
    QuantileSketch,
    float64_of_key,
    int64_of_key,
    key_of_float64,
    key_of_int64,
    merge,
    merge_all,
    sketch_counts,
    sketch_floats,
    sketch_keys,
)

LIMIT = 16
keys64 = st.integers(0, 2**64 - 1) | st.integers(2**40, 2**40 + 300) | st.integers(0, 60).map(lambda b: 1 << b)
finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(-1e9, 1e9) | st.integers(-4, 4).map(float)


def array(keys: list[int]) -> np.ndarray:
    return np.array(keys, dtype=np.uint64)


def content(sketch: QuantileSketch) -> tuple[list[int], list[int], int, int]:
    assert (sketch.keys.dtype, sketch.counts.dtype) == (np.dtype(np.uint64), np.dtype(np.int64))
    return sketch.keys.tolist(), sketch.counts.tolist(), sketch.shift, sketch.limit


def merged_in_a_random_tree(parts: list[QuantileSketch], pick: random.Random) -> QuantileSketch:
    parts = list(parts)
    while len(parts) > 1:
        pick.shuffle(parts)
        taken = pick.randint(2, min(3, len(parts)))
        joined = merge(parts[0], parts[1]) if taken == 2 else merge_all(parts[:taken])
        parts = [*parts[taken:], joined]
    return parts[0]


@settings(deadline=None)  # The first example compiles.
@given(st.lists(keys64, max_size=120), st.integers(1, 8), st.randoms(use_true_random=False))
def test_any_split_and_any_merge_tree_give_the_same_table(keys: list[int], n_parts: int, pick: random.Random) -> None:
    whole = content(sketch_keys(array(keys), LIMIT))
    assert whole == (*reference.coarsest_table(keys, LIMIT), LIMIT)
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    for key in keys:
        pick.choice(parts).append(key)
    sketches = [sketch_keys(array(part), LIMIT) for part in parts]
    assert content(merge_all(sketches)) == whole
    assert content(merged_in_a_random_tree(sketches, pick)) == whole


@given(st.lists(keys64, max_size=120))
def test_keys_that_are_counted_already_give_the_same_table(keys: list[int]) -> None:
    distinct, counts = np.unique(array(keys), return_counts=True)
    assert content(sketch_counts(distinct, counts, LIMIT)) == content(sketch_keys(array(keys), LIMIT))
    assert content(sketch_counts(np.sort(array(keys)), np.ones(len(keys), np.int64), LIMIT)) == content(
        sketch_keys(array(keys), LIMIT)
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 100, 5000])
def test_many_rows_in_parts_of_very_different_sizes(limit: int) -> None:
    values = np.random.default_rng(3).lognormal(size=30_000)
    parts = [sketch_floats(part, limit) for part in np.split(values, [1, 10, 500, 20_000])]
    whole = sketch_floats(values, limit)
    assert content(merge_all(parts)) == content(whole)
    assert whole.keys.size <= limit < 30_000
    assert whole.total == 30_000
    # One bit less would not have fitted.
    finer = np.unique(key_of_float64(values) >> np.uint64(whole.shift - 1)).size
    assert finer > limit


@given(st.lists(finite, max_size=60))
def test_float_keys_keep_the_order_and_the_value(values: list[float]) -> None:
    numbers = np.array([*values, math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324])
    keys = key_of_float64(numbers)
    assert np.array_equal(float64_of_key(keys), numbers)
    assert np.array_equal(numbers[np.argsort(keys)], np.sort(numbers))
    assert key_of_float64(np.array([0.0]))[0] == key_of_float64(np.array([-0.0]))[0]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60))
def test_int_keys_keep_the_order_and_the_value(values: list[int]) -> None:
    numbers = np.array(values, dtype=np.int64)
    assert int64_of_key(key_of_int64(numbers)).tolist() == values
    assert np.argsort(key_of_int64(numbers), kind="stable").tolist() == np.argsort(numbers, kind="stable").tolist()


@settings(deadline=None)  # The first example compiles.
@given(st.lists(finite, min_size=1, max_size=40))
def test_median_is_numpys(values: list[float]) -> None:
    # NumPy adds the two in the middle before it halves them, which may overflow.
    halves = np.array(values) / 2
    assert sketch_floats(halves).quantile_float(0.5) == np.median(halves)


def test_median_of_the_largest_numbers_does_not_overflow() -> None:
    largest = np.finfo(float).max
    assert sketch_floats(np.array([largest, largest])).quantile_float(0.5) == largest


@settings(deadline=None)  # The first example compiles.
@given(st.lists(moderate, min_size=1, max_size=40), st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.75, 1.0]))
def test_quantiles_are_numpys(values: list[float], q: float) -> None:
    expected = np.median(values) if q == 0.5 else np.quantile(values, q)
    assert sketch_floats(np.array(values)).quantile_float(q) == expected


@settings(deadline=None)  # The first example compiles.
@given(st.lists(keys64, min_size=1, max_size=80), st.integers(0, 2**64 - 1))
def test_ranks_and_counts(keys: list[int], probe: int) -> None:
    sketch = sketch_keys(array(keys), LIMIT)
    ordered = sorted(keys)
    for k in range(1, len(keys) + 1):
        assert sketch.rank_key(k) == ordered[k - 1] >> sketch.shift << sketch.shift
    lower = probe >> sketch.shift << sketch.shift
    assert sketch.count_below(probe) == sum(key < lower for key in keys)
    exact = sketch_keys(array(keys), len(keys))
    assert exact.shift == 0
    assert exact.count_below(probe) == sum(key < probe for key in keys)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.normal(size=20_000),
        lambda rng: -rng.lognormal(10, 3, size=20_000),
        lambda rng: rng.normal(size=20_000) * 10.0 ** rng.integers(-300, 300, 20_000),
    ],
)
@pytest.mark.parametrize("q", [0.0, 0.01, 0.5, 0.9, 1.0])
def test_error_stays_within_the_stated_bound(draw: Callable[[np.random.Generator], np.ndarray], q: float) -> None:
    values = draw(np.random.default_rng(4))
    sketch = sketch_floats(values, limit=4096)
    assert 0 < sketch.shift <= 52
    exact = np.quantile(values, q, method="lower"), np.quantile(values, q, method="higher")
    bound = 2.0 ** (sketch.shift - 52) * max(map(abs, exact))
    assert exact[0] - bound <= sketch.quantile_float(q) <= exact[1] + bound


def test_nan_are_left_out_and_infinities_count() -> None:
    values = np.array([math.nan, 1.0, math.inf, -math.inf, 2.0, math.nan])
    exact = sketch_floats(values)
    assert exact.total == 4
    assert [exact.quantile_float(q) for q in (0.0, 0.5, 1.0)] == [-math.inf, 1.5, math.inf]
    many = np.r_[values, np.random.default_rng(5).normal(size=9000)]
    coarse = sketch_floats(many, limit=4096)
    assert coarse.shift > 0
    assert [coarse.quantile_float(q) for q in (0.0, 1.0)] == [-math.inf, math.inf]


def test_hashes_are_their_own_keys() -> None:
    hashes = array([7, 2**64 - 1, 0, 7])
    sketch = sketch_keys(hashes)
    assert content(sketch) == ([0, 7, 2**64 - 1], [1, 2, 1], 0, 2**17)
    assert [sketch.rank_key(k) for k in (1, 2, 3, 4)] == [0, 7, 7, 2**64 - 1]


def test_an_empty_part_changes_nothing() -> None:
    empty, some = sketch_floats(np.array([math.nan])), sketch_floats(np.array([3.0, 4.0]))
    assert empty.total == 0
    assert math.isnan(empty.quantile_float(0.5))
    assert empty.count_below(9) == 0
    assert content(merge(empty, some)) == content(some) == content(merge(some, empty))
    assert content(merge(empty, empty)) == content(empty)


def test_refusals() -> None:
    sketch = sketch_floats(np.array([1.0, 2.0]))
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"rank {k} is not between 1 and the 2 values"):
            sketch.rank_key(k)
    with pytest.raises(ValueError, match="rank 1 is not between 1 and the 0 values"):
        sketch_floats(np.array([])).rank_key(1)
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="a quantile lies between 0 and 1"):
            sketch.quantile_float(q)
    with pytest.raises(ValueError, match="at least 1 bucket, not 0"):
        sketch_keys(array([1]), limit=0)
    with pytest.raises(ValueError, match=r"one limit; these have \[16, 131072\]"):
        merge(sketch, sketch_floats(np.array([1.0]), limit=16))
    with pytest.raises(ValueError, match=r"one limit; these have \[\]"):
        merge_all([])
