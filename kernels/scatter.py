"""Count, means and sums of products of deviations of the features, class by class, from parts that merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.cuda import on_device
from treadle.kernels.tiles import ROWS, add_products, fill, given, groups, padded, symmetric, weigh

Kind = Literal["squares", "within", "each"]
KINDS: tuple[Kind, ...] = ("squares", "within", "each")
"""In the order of what they hold: variances of each class, the scatter in classes together, that of each class."""


@dataclass(frozen=True, eq=False)
class Scatter:
    """What one pass over rows of d features in classes leaves behind; all float64.

    `weight` (classes,): the sum of the rows' weights, their number without weights. `mean` (classes, d), 0 for a
    class without rows. `squares` (classes, d): weighted sums of squared deviations from the class's mean.
    `scatter`, the sums of their products: (classes, d, d) of each class, (1, d, d) summed up over the classes, or
    (0, d, d), by `kind`.
    """

    kind: Kind
    weight: NDArray[np.float64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @property
    def within(self) -> NDArray[np.float64]:
        """(d, d): the scatter in all classes together."""
        return self.scatter.sum(axis=0)

    @property
    def center(self) -> NDArray[np.float64]:
        """(d,): the mean of all rows."""
        total: NDArray[np.float64] = self.weight @ self.mean / self.weight.sum()
        return total

    def reweighted(self, factors: NDArray[np.float64]) -> Scatter:
        """As if each row's weight were multiplied by the factor of its class (classes,); of `each` or `squares`."""
        assert self.kind != "within"
        by = factors[:, None]
        return Scatter(self.kind, self.weight * factors, self.mean, self.squares * by, self.scatter * by[..., None])

    def total_squares(self) -> NDArray[np.float64]:
        """(d,): sums of squared deviations from the mean of all rows."""
        apart = self.mean - self.center
        total: NDArray[np.float64] = self.squares.sum(axis=0) + self.weight @ (apart * apart)
        return total

    def total(self) -> NDArray[np.float64]:
        """(d, d): sums of products of deviations from the mean of all rows."""
        apart = self.mean - self.center
        return self.within + (apart * self.weight[:, None]).T @ apart


def shape_of(kind: Kind, classes: int, features: int) -> tuple[int, int, int]:
    """That of `Scatter.scatter`."""
    return {"squares": 0, "within": 1, "each": classes}[kind], features, features


def scatter(
    matrix: NDArray[np.float32],
    codes: NDArray[Any],
    classes: int,
    kind: Kind,
    index: NDArray[np.int64],
    weight: NDArray[np.float64] | None = None,
    extra: NDArray[np.float64] | None = None,
) -> Scatter:
    """Of some rows of a matrix without nulls.

    Deviations are from the mean of the tile that a row is in, and taken from the class's first row before, so that
    large values cost no digits and the squares of a constant are exactly 0.

    Parameters
    ----------
    matrix : float32 (rows, features), C order; of one on a GPU sums are made there (`treadle.kernels.cuda.scatter`)
    codes : (rows,) the class of a row, 0 to classes - 1; not looked at when there is one class
    index : the rows to take
    weight : (rows,) not negative; 1 when None
    extra : (rows, any) columns that count as features after those of the matrix
    """
    if on_device(matrix):
        from treadle.kernels.cuda.scatter import scatter as scatter_on_device

        return scatter_on_device(matrix, codes, classes, kind, index, weight, extra)
    more = given(extra, (len(matrix), 0))
    d = matrix.shape[1] + more.shape[1]
    p = padded(d)
    order, starts = groups(codes, index, classes)
    total, mean, squares = np.zeros(classes), np.zeros((classes, p)), np.zeros((classes, p))
    products = np.zeros(shape_of(kind, classes, p))
    _gather(given(matrix), more, given(order), given(starts), given(weight), total, mean, squares, products)
    return Scatter(kind, total, mean[:, :d], squares[:, :d], symmetric(products, d))


@numba.njit(nogil=True, cache=True)
def _gather(matrix, extra, order, starts, weight, total, mean, squares, products):  # type: ignore[no-untyped-def]
    d = matrix.shape[1] + extra.shape[1]
    p = mean.shape[1]
    tile, heavy = np.zeros((p, ROWS)), np.zeros((p, ROWS))
    first, ones, apart, by = np.zeros(p), np.ones(p), np.zeros(p), np.ones(ROWS)
    for c in range(len(starts) - 1):
        into = products[min(c, len(products) - 1)] if len(products) else products[:0].reshape(0, 0)
        for start in range(starts[c], starts[c + 1], ROWS):
            stop = min(start + ROWS, starts[c + 1])
            rows = stop - start
            for j in range(d):
                first[j] = (
                    np.float64(matrix[order[starts[c]], j])
                    if j < matrix.shape[1]
                    else extra[order[starts[c]], j - matrix.shape[1]]
                )
            fill(matrix, extra, order, start, stop, first, ones, tile)
            added = weigh(weight, order, start, stop, by)
            if added == 0.0:
                continue
            whole = total[c] + added
            for j in range(d):
                shift = 0.0
                for k in range(rows):
                    shift += tile[j, k] * by[k]
                shift /= added
                square = 0.0
                for k in range(rows):
                    tile[j, k] -= shift
                    heavy[j, k] = tile[j, k] * by[k]
                    square += tile[j, k] * heavy[j, k]
                here = first[j] + shift
                apart[j] = here - mean[c, j] if total[c] > 0.0 else 0.0
                squares[c, j] += square + apart[j] * apart[j] * (total[c] * added / whole)
                mean[c, j] = mean[c, j] + apart[j] * (added / whole) if total[c] > 0.0 else here
            if len(products):
                add_products(heavy, tile, rows, into)
                part = total[c] * added / whole
                for i in range(d):
                    for j in range(i + 1):
                        into[i, j] += apart[i] * apart[j] * part
            total[c] = whole


def merge(a: Scatter, b: Scatter) -> Scatter:
    """Of two disjoint parts together, equal for every order and grouping to rounding.

    Source: Chan, Golub and LeVeque (Stanford STAN-CS-79-773, 1979); for products, Pébay (Sandia SAND2008-6212),
    equation 3.12.
    """
    weight = a.weight + b.weight
    both = (a.weight > 0) & (b.weight > 0)
    some = np.where(weight > 0, weight, 1.0)
    apart = np.where(both[:, None], b.mean - a.mean, 0.0)
    mean = np.where(a.weight[:, None] > 0, a.mean + apart * (b.weight / some)[:, None], b.mean)
    # Of roots, so that products come out symmetric to the last bit.
    part = np.sqrt(a.weight * b.weight / some)[:, None] * apart
    products = a.scatter + b.scatter
    if a.kind == "within":
        products[0] += part.T @ part
    elif a.kind == "each":
        products += part[:, :, None] * part[:, None, :]
    return Scatter(a.kind, weight, mean, a.squares + b.squares + part * part, products)


def merge_all(parts: Sequence[Scatter]) -> Scatter:
    """Of several disjoint parts, at least one, in their order."""
    return reduce(merge, parts)
