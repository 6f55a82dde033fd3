"""HyperLogLog: the registers against their definition, merging, and the error of the estimate over many seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels import distinct as kernel
from treadle.kernels.distinct import (
    PRECISION,
    entries_of,
    estimate,
    estimate_entries,
    merge,
    merge_entries,
    relative_error,
    sketch,
    sketch_groups,
)
from treadle.kernels.hashing import mix64

hashes64 = st.integers(0, 2**64 - 1) | st.integers(0, 63).map(lambda bit: 1 << bit) | st.just(0)


def registers_by_definition(hashes: list[int], precision: int) -> list[int]:
    found = [0] * (1 << precision)
    for number in hashes:
        bits = f"{number:064b}"
        register, rest = int(bits[:precision], 2), bits[precision:]
        found[register] = max(found[register], len(rest) - len(rest.lstrip("0")) + 1)
    return found


def array(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


@given(st.lists(hashes64, max_size=60), st.sampled_from([4, 5, 10, 18]))
@settings(max_examples=40, deadline=None)
def test_registers_are_those_of_the_definition(numbers: list[int], precision: int) -> None:
    found = sketch(array(numbers), precision)
    assert found.dtype == np.uint8
    assert found.tolist() == registers_by_definition(numbers, precision)


@given(st.lists(st.tuples(hashes64, st.integers(-1, 3)), max_size=60), st.integers(0, 60))
@settings(deadline=None)
def test_parts_and_groups_merge_to_the_whole(rows: list[tuple[int, int]], cut: int) -> None:
    hashes, codes = array([hash_ for hash_, _ in rows]), np.array([code for _, code in rows], dtype=np.int64)
    whole = sketch_groups(hashes, codes, 4, 6)
    assert whole.shape == (4, 64)
    for group in range(4):
        assert np.array_equal(whole[group], sketch(hashes[codes == group], 6))
    parts = [sketch_groups(hashes[part], codes[part], 4, 6) for part in (slice(cut), slice(cut, None))]
    assert np.array_equal(merge(*parts), whole)
    assert np.array_equal(merge(whole, parts[0]), whole), "rows that are counted again change nothing"


@pytest.mark.parametrize("dense", [0, 2**24])
@given(rows=st.lists(st.tuples(hashes64, st.integers(-1, 3)), max_size=60), cut=st.integers(0, 60))
@settings(deadline=None, max_examples=40)
def test_entries_are_the_registers_that_are_not_zero(dense: int, rows: list[tuple[int, int]], cut: int) -> None:
    hashes, codes = array([hash_ for hash_, _ in rows]), np.array([code for _, code in rows], dtype=np.int64)
    registers = sketch_groups(hashes, codes, 4, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "DENSE_BYTES", dense)
        parts = [entries_of(hashes[part], codes[part], 4, 6) for part in (slice(None), slice(cut), slice(cut, None))]
    found = [(int(e) >> 12, int(e) >> 6 & 63, int(e) & 63) for e in parts[0]]
    assert found == [(g, r, int(registers[g, r])) for g in range(4) for r in range(64) if registers[g, r]]
    assert np.array_equal(merge_entries(np.concatenate([parts[2], parts[1]])), parts[0])
    assert np.array_equal(estimate_entries(parts[0], 4, 6), estimate(registers))


@pytest.mark.parametrize("precision", [10, PRECISION])
@pytest.mark.parametrize("distinct", [1_000, 40_000, 400_000])
def test_the_error_is_within_what_is_stated(distinct: int, precision: int) -> None:
    seeds = 25
    numbers = np.arange(distinct, dtype=np.uint64)
    errors = np.array([estimate(sketch(mix64(numbers, seed), precision)) / distinct - 1 for seed in range(seeds)])
    bound = relative_error(precision)
    # 99.7 % of single estimates lie within three standard errors: one of 25 may be just beyond.
    assert np.count_nonzero(np.abs(errors) > 3 * bound) <= 1
    assert np.abs(errors).max() < 4 * bound
    assert abs(errors.mean()) < 3 * bound / math.sqrt(seeds), "biased"
    assert errors.std() < 1.4 * bound
    if distinct > 20 * 2**precision:
        assert errors.std() > 0.6 * bound, "the stated error is too large"


def test_estimates_of_groups_are_those_of_each_alone() -> None:
    hashes = mix64(np.arange(60_000, dtype=np.uint64), 5)
    codes = np.repeat([0, 2, 2, 3], 15_000)
    found = estimate(sketch_groups(hashes, codes, 4, 10))
    assert found.shape == (4,)
    assert found.dtype == np.float64
    assert found[1] == 0.0
    assert found.tolist() == [estimate(sketch(hashes[codes == group], 10)) for group in range(4)]
    assert found[2] == pytest.approx(30_000, rel=4 * relative_error(10))


def test_few_values_are_counted_almost_exactly() -> None:
    for distinct in range(60):
        found = estimate(sketch(mix64(np.arange(distinct, dtype=np.uint64), 1)))
        assert round(found) == distinct
    repeated = mix64(np.zeros(1000, dtype=np.uint64), 1)
    assert round(estimate(sketch(repeated))) == 1


def test_the_stated_errors() -> None:
    assert relative_error() == pytest.approx(1.04 / 2**7, rel=2e-3)
    assert relative_error(10) == pytest.approx(0.0325, rel=2e-3)


def test_refusals() -> None:
    two = array([1, 2])
    with pytest.raises(ValueError, match="between 4 and 18 bits, not 3"):
        sketch(two, 3)
    with pytest.raises(ValueError, match="code 2 is not below the number of groups, 2"):
        sketch_groups(two, np.array([0, 2]), 2)
    with pytest.raises(ValueError, match="a code for each hash"):
        sketch_groups(two, np.array([0]), 2)
    with pytest.raises(ValueError, match="merge when they are as many"):
        merge(sketch(two, 4), sketch(two, 5))
    with pytest.raises(ValueError, match="100 registers are no sketch"):
        estimate(np.zeros(100, dtype=np.uint8))
