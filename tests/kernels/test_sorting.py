"""Keys sorted by their digits, against NumPy's sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.sorting import BITS, WORTH, sort_keys


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, WORTH - 1, WORTH, WORTH + 1, 3 * WORTH]),
    st.lists(st.integers(0, 63), max_size=64, unique=True),
)
@settings(max_examples=60)
def test_keys_that_differ_in_any_bits_are_sorted(seed: int, count: int, bits: list[int]) -> None:
    mask = np.uint64(sum(1 << bit for bit in bits))
    random = np.random.default_rng(seed)
    fixed, drawn = random.integers(0, 2**64, count + 1, dtype=np.uint64)[0], random.integers(0, 2**64, count, np.uint64)
    keys = (drawn & mask) | (fixed & ~mask)
    expected = np.sort(keys)
    sort_keys(keys, np.empty(count, dtype=np.int64))
    assert np.array_equal(keys, expected)


@pytest.mark.parametrize("digits", range(7))
def test_the_outcome_lies_in_the_array_itself_after_any_number_of_passes(digits: int) -> None:
    keys = np.random.default_rng(digits).integers(0, 2 ** min(BITS * digits, 64), WORTH, dtype=np.uint64)
    expected = np.sort(keys)
    sort_keys(keys, np.empty_like(keys))
    assert np.array_equal(keys, expected)
