"""Pearson's correlations of all pairs of columns, from sums of products that merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_BLOCK = 2048
"""Rows at a time: their columns stay in the cache while they are multiplied."""


@dataclass(frozen=True, eq=False)
class Comoments:
    """What one pass over d columns leaves behind of their pairs; all arrays are (d, d) float64.

    A pair is over the rows in which both columns are known (finite). `count`: these rows;
    `mean[i, j]` and `square[i, j]`: the mean of column i over them and its sum of squared deviations from that;
    `product[i, j]`: the sum of products of the deviations of both.
    """

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    product: NDArray[np.float64]

    def correlations(self) -> NDArray[np.float64]:
        """(d, d), between -1 and 1; NaN for pairs with fewer than two rows or with a constant column."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            found = self.product / np.sqrt(self.square) / np.sqrt(self.square.T)
        found[~np.isfinite(found)] = np.nan
        return np.clip(found, -1.0, 1.0)


def comoments(columns: Sequence[NDArray[Any]]) -> Comoments:
    """Of d columns (n,) each; NaN and infinities count as unknown, pair by pair.

    Two passes over a block of rows for each pair: deviations are from the pair's own means, so that values elsewhere in
    a column cost no digits, and those of constant columns are exactly 0.
    """
    d = len(columns)
    found = Comoments(*(np.zeros((d, d)) for _ in range(4)))
    for start in range(0, len(columns[0]) if d else 0, _BLOCK):
        block = np.stack([np.asarray(column[start : start + _BLOCK], dtype=np.float64) for column in columns])
        known = np.isfinite(block)
        block[~known] = 0.0
        found = merge(found, Comoments(*_of_block(block, known.astype(np.float64), known.all(axis=1))))
    return found


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _of_block(values, known, whole):  # type: ignore[no-untyped-def]
    """Count, means, squares and products of a block (d, rows), in which unknown values are 0."""
    d, rows = values.shape
    count, mean = np.zeros((d, d)), np.zeros((d, d))
    square, product = np.zeros((d, d)), np.zeros((d, d))
    apart = np.zeros((d, rows))
    centre = np.zeros(d)
    for i in range(d):
        if whole[i] and rows:
            first, total = values[i, 0], 0.0
            for k in range(rows):
                apart[i, k] = values[i, k] - first
                total += apart[i, k]
            shift = total / rows
            centre[i] = first + shift
            for k in range(rows):
                apart[i, k] -= shift
    for i in range(d):
        for j in range(i + 1):
            one, other, both = 0.0, 0.0, 0.0
            if whole[i] and whole[j]:
                n = float(rows)
                for k in range(rows):
                    one += apart[i, k] * apart[i, k]
                    other += apart[j, k] * apart[j, k]
                    both += apart[i, k] * apart[j, k]
                mean[i, j], mean[j, i] = centre[i], centre[j]
            else:
                start = 0
                while start < rows and known[i, start] * known[j, start] == 0.0:
                    start += 1
                if start == rows:
                    continue
                first, second = values[i, start], values[j, start]
                n, total, total2 = 0.0, 0.0, 0.0
                for k in range(start, rows):
                    weight = known[i, k] * known[j, k]
                    n += weight
                    total += weight * (values[i, k] - first)
                    total2 += weight * (values[j, k] - second)
                shift, shift2 = total / n, total2 / n
                for k in range(start, rows):
                    weight = known[i, k] * known[j, k]
                    a = weight * ((values[i, k] - first) - shift)
                    b = weight * ((values[j, k] - second) - shift2)
                    one += a * a
                    other += b * b
                    both += a * b
                mean[i, j], mean[j, i] = first + shift, second + shift2
            count[i, j] = count[j, i] = n
            square[i, j], square[j, i] = one, other
            product[i, j] = product[j, i] = both
    return count, mean, square, product


def merge(a: Comoments, b: Comoments) -> Comoments:
    """Of two disjoint parts together: equal for every order and grouping to rounding.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", Stanford STAN-CS-79-773 (1979); for products, Pébay, "Formulas for robust,
    one-pass parallel computation of covariances", Sandia SAND2008-6212, equation 3.12.
    """
    count = a.count + b.count
    rows = np.maximum(count, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.where((a.count > 0) & (b.count > 0), b.mean - a.mean, 0.0)
        weight = a.count * b.count / rows
        mean = np.where(a.count >= b.count, a.mean + apart * (b.count / rows), b.mean - apart * (a.count / rows))
        square = a.square + b.square + apart * apart * weight
        product = a.product + b.product + apart * apart.T * weight
    return Comoments(count, mean, square, product)


def merge_all(parts: Sequence[Comoments]) -> Comoments:
    """Of several disjoint parts of the same columns, at least one."""
    return reduce(merge, parts)
