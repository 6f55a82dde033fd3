"""The triangular factor of the deviations of columns from their means, from parts that merge.

Sums of products square what makes columns different: two that agree to 8 digits are the same to them. Least
squares without a penalty are therefore solved from the factor R of a QR decomposition, whose R'R are these sums.
Rows are folded into it a tile at a time by Householder reflections, so that it is as exact as the decomposition
of all rows at once, and R of two parts follows from those of each (Demmel, Grigori, Hoemmen and Langou,
"Communication-optimal parallel and sequential QR and LU factorizations", SIAM J. Sci. Comput. 34, 2012). The
means merge as in `treadle.kernels.scatter`: two parts differ from their common mean by one more row.

There is no version for devices. A tile's reflections come one after the other, and all threads of a block would
wait twice in each, for a sum over the rows and for what it changes; the factors of hundreds of blocks would then
have to be folded into each other in the same way. Products, of which a GPU makes many at a time, are what this is
there to avoid: Cholesky's factor of them has lost what they have lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.tiles import FAST, ROWS, fill, given, weigh


@dataclass(frozen=True, eq=False)
class Triangle:
    """`weight`: the sum of the rows' weights; `mean` (d,); `factor` (d, d) float64, upper triangular.

    With weights, rows count as if multiplied by the root of theirs.
    """

    weight: float
    mean: NDArray[np.float64]
    factor: NDArray[np.float64]


def triangle(
    matrix: NDArray[np.float32],
    extra: NDArray[np.float64],
    index: NDArray[np.int64],
    weight: NDArray[np.float64] | None = None,
    centred: bool = True,
) -> Triangle:
    """Of some rows of a float32 matrix (rows, features) without nulls, `extra` (rows, any) as columns after it.

    Without `centred` the means are taken to be 0.
    """
    d = matrix.shape[1] + extra.shape[1]
    # A column of R's transpose is contiguous, as a column of a tile is.
    factor, mean, total = np.zeros((d, d)), np.zeros(d), np.zeros(1)
    _gather(given(matrix), given(extra), given(index), given(weight), centred, factor, mean, total)
    return Triangle(float(total[0]), mean, factor.T.copy())


@numba.njit(nogil=True, cache=True)
def _gather(matrix, extra, order, weight, centred, columns, mean, total):  # type: ignore[no-untyped-def]
    d = len(mean)
    tile = np.zeros((d, ROWS + 1))
    first, ones, by = np.zeros(d), np.ones(d), np.ones(ROWS)
    if centred and len(order):
        for j in range(d):
            first[j] = matrix[order[0], j] if j < matrix.shape[1] else extra[order[0], j - matrix.shape[1]]
    for start in range(0, len(order), ROWS):
        stop = min(start + ROWS, len(order))
        rows = stop - start
        fill(matrix, extra, order, start, stop, first, ones, tile)
        added = weigh(weight, order, start, stop, by)
        if added == 0.0:
            continue
        whole = total[0] + added
        for j in range(d):
            if centred:
                shift = 0.0
                for k in range(rows):
                    shift += tile[j, k] * by[k]
                shift /= added
                for k in range(rows):
                    tile[j, k] -= shift
                here = first[j] + shift
                apart = here - mean[j] if total[0] > 0.0 else 0.0
                mean[j] = mean[j] + apart * (added / whole) if total[0] > 0.0 else here
                tile[j, rows] = apart * np.sqrt(total[0] * added / whole)
            if len(weight):
                for k in range(rows):
                    tile[j, k] *= np.sqrt(by[k])
        fold(columns, tile, rows + 1)
        total[0] = whole


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def fold(columns, tile, rows):  # type: ignore[no-untyped-def]
    """R of [R; tile'] into `columns`, R's transpose (d, d); the first `rows` columns of the tile (d, any) are lost.

    Householder reflections as LAPACK's dtpqrt makes them: each leaves the rows of R below its own alone.
    """
    d = len(columns)
    for j in range(d):
        square = 0.0
        for k in range(rows):
            square += tile[j, k] * tile[j, k]
        if square == 0.0:
            continue
        old = columns[j, j]
        new = np.sqrt(old * old + square)
        if old > 0.0:
            new = -new
        by = (new - old) / new
        for k in range(rows):
            tile[j, k] /= old - new
        columns[j, j] = new
        for m in range(j + 1, d):
            dot = columns[m, j]
            for k in range(rows):
                dot += tile[j, k] * tile[m, k]
            dot *= by
            columns[m, j] -= dot
            for k in range(rows):
                tile[m, k] -= dot * tile[j, k]


def merge(a: Triangle, b: Triangle) -> Triangle:
    """Of two disjoint parts together; the means of both are 0 when they are not centred."""
    if a.weight == 0 or b.weight == 0:
        return a if b.weight == 0 else b
    weight = a.weight + b.weight
    apart = b.mean - a.mean
    columns = a.factor.T.copy()
    rows = np.concatenate([b.factor, apart[None] * np.sqrt(a.weight * b.weight / weight)])
    fold(columns, np.ascontiguousarray(rows.T), len(rows))
    return Triangle(weight, a.mean + apart * (b.weight / weight), columns.T.copy())


def merge_all(parts: Sequence[Triangle]) -> Triangle:
    """Of several disjoint parts, at least one, in their order."""
    return reduce(merge, parts)
