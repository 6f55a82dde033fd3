"""Sums of float64 numbers without rounding, so that no order and no partitioning can change them.

A sum is a Python integer in units of 2**-1074, the smallest float64: every finite float64 is a
whole number of them. Sums of parts are added with `+`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNITS_PER_ONE = 1 << 1074

# Halves of 27 bits are added in float64, which is exact for up to 2**26 of them.
_BLOCK = 1 << 20
_FRACTION = np.uint64((1 << 52) - 1)
_IMPLICIT = np.uint64(1 << 52)
_LOW_HALF = np.uint64((1 << 26) - 1)
_NOT_FINITE = 0x7FF
# Veltkamp's constant, which splits 53 bits into 26 and 27.
_SPLITTER = 2.0**27 + 1.0


def exact_sum(values: NDArray[Any]) -> int:
    """The sum of a numeric array as float64, in units of 2**-1074; ValueError unless all are finite."""
    numbers = np.ascontiguousarray(values, dtype=np.float64).ravel()
    return sum(_block_sum(numbers[start : start + _BLOCK]) for start in range(0, numbers.size, _BLOCK))


def exact_sum_of_squares(values: NDArray[Any]) -> int:
    """The sum of squares of a numeric array as float64, in units of 2**-1074.

    Each square is kept as its rounded value and the rounding error, so the sum is that of the true
    squares for magnitudes from 1e-140 to 1e150 (below that, squares are rounded, still one by one).
    Raises ValueError when a square is not finite. Source: Dekker, "A floating-point technique for
    extending the available precision", Numerische Mathematik 18 (1971), with Veltkamp's splitting.
    """
    numbers = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        squares = numbers * numbers
        total = exact_sum(squares)
        scaled = _SPLITTER * numbers
        high = scaled - (scaled - numbers)
        low = numbers - high
        errors = low * low - ((squares - high * high) - 2.0 * high * low)
    return total + exact_sum(errors)


def _block_sum(numbers: NDArray[np.float64]) -> int:
    """The exact sum of at most 2**26 numbers: halves of the significands, added up by exponent."""
    bits = numbers.view(np.uint64)
    exponents = ((bits >> np.uint64(52)) & np.uint64(_NOT_FINITE)).astype(np.int64)
    if exponents.size and int(exponents.max()) == _NOT_FINITE:
        raise ValueError("an exact sum needs finite numbers")
    significands = (bits & _FRACTION) | np.where(exponents > 0, _IMPLICIT, np.uint64(0))
    signs = np.where(np.signbit(numbers), -1.0, 1.0)
    high = np.bincount(exponents, weights=signs * (significands >> np.uint64(26)))
    low = np.bincount(exponents, weights=signs * (significands & _LOW_HALF))
    total = 0
    for exponent in np.flatnonzero((high != 0) | (low != 0)).tolist():
        total += ((int(high[exponent]) << 26) + int(low[exponent])) << max(exponent - 1, 0)
    return total
