"""Exact sums against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import reference
from treadle.kernels.exact import UNITS_PER_ONE, exact_sum, exact_sum_of_squares

finite = st.floats(allow_nan=False, allow_infinity=False)
squarable = st.floats(1e-140, 1e150) | st.floats(-1e150, -1e-140) | st.just(0.0)


@given(st.lists(finite, max_size=60))
def test_sums_are_those_of_fractions(values: list[float]) -> None:
    assert Fraction(exact_sum(np.array(values)), UNITS_PER_ONE) == reference.exact_total(values)


@given(st.lists(squarable, max_size=60))
def test_sums_of_squares_are_those_of_fractions(values: list[float]) -> None:
    expected = sum((Fraction(value) ** 2 for value in values), Fraction(0))
    assert Fraction(exact_sum_of_squares(np.array(values)), UNITS_PER_ONE) == expected


def test_what_rounding_would_lose_is_kept() -> None:
    values = np.array([1e300, 1.0, -1e300, 5e-324, 1e16, 1.0, -1e16])
    assert exact_sum(values) == 2 * UNITS_PER_ONE + 1
    assert float(values.sum()) != 2.0


def test_more_rows_than_a_block() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=(1 << 20) + 17)
    found = exact_sum(values)
    assert found / UNITS_PER_ONE == math.fsum(values)
    assert found == sum(exact_sum(part) for part in np.array_split(rng.permutation(values), 5))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_only_finite_numbers(bad: float) -> None:
    with pytest.raises(ValueError, match="needs finite numbers"):
        exact_sum(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="needs finite numbers"):
        exact_sum_of_squares(np.array([1.0, bad]))
    with pytest.raises(ValueError, match="needs finite numbers"):
        exact_sum_of_squares(np.array([1e200]))
