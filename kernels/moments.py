"""Count, mean, variance and range of a column, gathered by part and merged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import read_only

# A row-major matrix is copied to columns this many at a time: a cache line of float64 holds 8.
_COLUMNS_AT_ONCE = 16


@dataclass(frozen=True)
class Moments:
    """What one pass over a column leaves behind.

    `count` values that are not NaN, `nulls` that are; `mean`; `m2`, the sum of squared deviations
    from the mean; `minimum` and `maximum`. Without values: mean 0.0, m2 0.0, minimum inf, maximum
    -inf. Infinities are values: they make `mean` infinite (NaN when both signs occur) and `m2` NaN.
    """

    count: int
    nulls: int
    mean: float
    m2: float
    minimum: float
    maximum: float

    @property
    def variance(self) -> float:
        """Population variance (ddof 0); NaN without values or with an infinity among them."""
        return self.m2 / self.count if self.count else math.nan

    @property
    def std(self) -> float:
        """Population standard deviation, the square root of `variance`."""
        return math.sqrt(self.variance)


EMPTY = Moments(count=0, nulls=0, mean=0.0, m2=0.0, minimum=math.inf, maximum=-math.inf)


def moments(values: NDArray[Any]) -> Moments:
    """Moments of a 1-D numeric array; NaN are nulls, everything is computed in float64.

    The corrected two-pass algorithm: the second pass also sums the deviations themselves, which
    removes the rounding of the first mean. Source: Chan, Golub and LeVeque, "Algorithms for
    computing the sample variance", The American Statistician 37 (1983), equation 1.7.
    """
    numbers = np.ascontiguousarray(values, dtype=np.float64)
    out = np.empty_like(numbers)
    found, ends = gather(numbers, out)
    return moments_of(found, *ends, len(numbers))


def gather(
    values: NDArray[np.float64], out: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[float, float, float]]:
    """The values of a contiguous array that are not NaN, at the start of `out`; their minimum, maximum and sum."""
    count, minimum, maximum, total = _gather(read_only(values), out)
    return out[:count], (minimum, maximum, total)


def moments_of(numbers: NDArray[np.float64], minimum: float, maximum: float, total: float, rows: int) -> Moments:
    """Moments from what `gather` gives of an array of so many rows."""
    count = len(numbers)
    nulls = rows - count
    if count == 0:
        return Moments(0, nulls, EMPTY.mean, EMPTY.m2, EMPTY.minimum, EMPTY.maximum)
    if math.isinf(minimum) or math.isinf(maximum):
        # One infinity decides the sum; Python's float addition gives NaN for both signs, silently.
        return Moments(count, nulls, minimum + maximum, math.nan, minimum, maximum)
    if minimum == maximum:
        return Moments(count, nulls, minimum, 0.0, minimum, maximum)
    rough = total / count
    drift, squares = _deviations(read_only(numbers), rough)
    return Moments(count, nulls, rough + drift / count, max(squares - drift * drift / count, 0.0), minimum, maximum)


@numba.njit(nogil=True, cache=True)
def _gather(values, out):  # type: ignore[no-untyped-def]
    """What is not NaN, at the start of `out`; count, minimum, maximum, sum."""
    count = 0
    for i in range(len(values)):
        out[count] = values[i]
        count += not math.isnan(values[i])
    minimum, maximum = math.inf, -math.inf
    # Four sums: an addition need not wait for the one before.
    a = b = c = d = 0.0
    whole = count // 4 * 4
    for i in range(0, whole, 4):
        p, q, r, s = out[i], out[i + 1], out[i + 2], out[i + 3]
        a, b, c, d = a + p, b + q, c + r, d + s
        minimum = min(minimum, min(min(p, q), min(r, s)))
        maximum = max(maximum, max(max(p, q), max(r, s)))
    for i in range(whole, count):
        a += out[i]
        minimum, maximum = min(minimum, out[i]), max(maximum, out[i])
    return count, minimum, maximum, (a + b) + (c + d)


@numba.njit(nogil=True, cache=True)
def _deviations(numbers, centre):  # type: ignore[no-untyped-def]
    """The sum of the deviations from `centre`, and of their squares."""
    a = b = c = d = 0.0
    e = f = g = h = 0.0
    whole = len(numbers) // 4 * 4
    for i in range(0, whole, 4):
        p, q, r, s = numbers[i] - centre, numbers[i + 1] - centre, numbers[i + 2] - centre, numbers[i + 3] - centre
        a, b, c, d = a + p, b + q, c + r, d + s
        e, f, g, h = e + p * p, f + q * q, g + r * r, h + s * s
    for i in range(whole, len(numbers)):
        p = numbers[i] - centre
        a, e = a + p, e + p * p
    return (a + b) + (c + d), (e + f) + (g + h)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two disjoint parts together; bit for bit commutative, and an empty part adds only
    its nulls. The mean moves from that of the larger part, so constants merge without rounding.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", Stanford STAN-CS-79-773 (1979), equation 2.1.
    """
    count, nulls = a.count + b.count, a.nulls + b.nulls
    minimum, maximum = min(a.minimum, b.minimum), max(a.maximum, b.maximum)
    if a.count == 0 or b.count == 0:
        filled = a if a.count else b
        return Moments(count, nulls, filled.mean, filled.m2, minimum, maximum)
    if math.isinf(minimum) or math.isinf(maximum):
        return Moments(count, nulls, minimum + maximum, math.nan, minimum, maximum)
    delta = b.mean - a.mean
    if a.count == b.count:
        mean = 0.5 * a.mean + 0.5 * b.mean
    elif a.count > b.count:
        mean = a.mean + delta * (b.count / count)
    else:
        mean = b.mean - delta * (a.count / count)
    m2 = a.m2 + b.m2 + delta * delta * (a.count * b.count / count)
    return Moments(count, nulls, mean, m2, minimum, maximum)


def column_moments(matrix: NDArray[Any]) -> list[Moments]:
    """Moments of every column of a 2-D numeric array (rows, columns), in either memory order."""
    found: list[Moments] = []
    for start in range(0, matrix.shape[1], _COLUMNS_AT_ONCE):
        block = np.asfortranarray(matrix[:, start : start + _COLUMNS_AT_ONCE], dtype=np.float64)
        found.extend(moments(block[:, j]) for j in range(block.shape[1]))
    return found
