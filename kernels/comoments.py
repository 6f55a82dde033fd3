"""Pearson's correlations of all pairs of columns, from sums of products that merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096
"""Rows at a time: their columns stay in the cache while they are multiplied."""
_CANCELLED = 1e-12
"""Less than this share of a sum is left where sums cancel out."""
_SAME = 1e-14
"""Numbers that lie closer together than this, relative to their size, differ by rounding."""


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
            spread = np.sqrt(self.square)
            constant = spread <= _SAME * np.abs(self.mean) * np.sqrt(self.count)
            found = self.product / spread / spread.T
        found[~np.isfinite(found) | constant | constant.T] = np.nan
        return np.clip(found, -1.0, 1.0)


def comoments(columns: Sequence[NDArray[Any]]) -> Comoments:
    """Of d columns (n,) each; NaN and infinities count as unknown, pair by pair.

    Products are of the deviations from each column's own mean, which keeps the cancellation small
    that their correction to the pair's means brings.
    """
    d = len(columns)
    count, drift, raw, product = (np.zeros((d, d)) for _ in range(4))
    rows = len(columns[0]) if d else 0
    centre = np.array([_mean(column) for column in columns], dtype=np.float64)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, rows, _BLOCK):
            block = np.stack([np.asarray(column[start : start + _BLOCK], dtype=np.float64) for column in columns])
            known = np.isfinite(block)
            block -= centre
            if known.all():
                # What holds for a column holds for all its pairs.
                count += block.shape[1]
                drift += block.sum(axis=1)[:, None]
                raw += np.einsum("ij,ij->i", block, block)[:, None]
            else:
                block[~known] = 0.0
                there = known.astype(np.float64)
                count += there @ there.T
                drift += block @ there.T
                raw += (block * block) @ there.T
            product += block @ block.T
        pairs = np.maximum(count, 1.0)
        mean = np.where(count > 0, centre + drift / pairs, 0.0)
        square = np.maximum(raw - drift * drift / pairs, 0.0)
        product -= drift * drift.T / pairs
        # A column that is constant over a pair's rows has no spread, only rounding.
        square[square <= _CANCELLED * raw] = 0.0
    return Comoments(count, mean, square, product)


def _mean(column: NDArray[Any]) -> float:
    """The mean of the finite values, 0.0 without any."""
    values = np.asarray(column, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum())
        if math.isfinite(total):
            return total / max(values.size, 1)
        values = values[np.isfinite(values)]
        return float(values.sum()) / max(values.size, 1)


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
