"""Tiles: a few rows of a matrix as columns of float64 in the cache, and sums of products of their columns.

What models are solved from are sums over rows of products of features. A tile of `ROWS` rows is copied out
of the row-major float32 matrix once, feature by feature, moved and scaled on the way, and all products are
made from it. Products and sums are float64: float32 has 24 bits, so that a product of two values is exact.
Features are padded with zeros to whole groups of `GROUP`, which the products are made in.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import read_only

ROWS = 256
"""Of a tile: 60 KiB for 30 features."""
GROUP = 4

FAST = {"reassoc", "contract", "nsz"}
"""Sums may be made in any order, which is the same for every call: nothing here depends on threads."""


def padded(features: int) -> int:
    """Features of a tile."""
    return -(-features // GROUP) * GROUP


def given(array: NDArray[Any] | None, otherwise: tuple[int, ...] = (0,)) -> NDArray[Any]:
    """An array as kernels here take it: contiguous, and not to be written, whatever it was before; empty for None.

    What comes from another process is read-only, and Numba would compile a kernel once more for it.
    """
    return read_only(np.ascontiguousarray(np.empty(otherwise) if array is None else array))


def groups(codes: np.ndarray, index: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows `index` class by class, each in its order; where the rows of a class start, (classes + 1,).

    Parameters
    ----------
    codes : (rows,) classes as numbers of any type
    index : int64, the rows that count
    """
    if classes == 1:
        return index, np.array([0, len(index)])
    chosen = codes[index].astype(np.int64)
    order = index[np.argsort(chosen, kind="stable")]
    return order, np.concatenate([[0], np.cumsum(np.bincount(chosen, minlength=classes))])


@numba.njit(nogil=True, cache=True)
def fill(matrix, extra, order, start, stop, shift, scale, tile):  # type: ignore[no-untyped-def]
    """Rows order[start:stop] into the columns of a tile: features, then `extra`, as (value - shift) * scale.

    `matrix` is float32 (rows, features), `extra` float64 (rows, any); columns beyond the rows are set to 0.
    """
    features, more = matrix.shape[1], extra.shape[1]
    for k in range(stop - start):
        row = order[start + k]
        for j in range(features):
            tile[j, k] = (np.float64(matrix[row, j]) - shift[j]) * scale[j]
        for j in range(more):
            tile[features + j, k] = (extra[row, j] - shift[features + j]) * scale[features + j]
    tile[:, stop - start :] = 0.0


@numba.njit(nogil=True, cache=True)
def weigh(weight, order, start, stop, by):  # type: ignore[no-untyped-def]
    """Weights of the rows order[start:stop] into `by`, which has ones where there are no weights; their sum."""
    if not len(weight):
        return np.float64(stop - start)
    added = 0.0
    for k in range(stop - start):
        by[k] = weight[order[start + k]]
        added += by[k]
    return added


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def add_products(left, right, rows, out):  # type: ignore[no-untyped-def]
    """out[i, j] += the sum of left[i, k] * right[j, k] over the first `rows` columns, for the groups j <= i.

    `left` and `right` are (features, ROWS) with features a multiple of GROUP, out (features, features).
    Sixteen sums at a time stay in registers, so that each value is loaded once for four products.
    """
    for i in range(0, left.shape[0], 4):
        for j in range(0, i + 4, 4):
            p00 = p01 = p02 = p03 = p10 = p11 = p12 = p13 = 0.0
            p20 = p21 = p22 = p23 = p30 = p31 = p32 = p33 = 0.0
            for k in range(rows):
                a, b, c, d = left[i, k], left[i + 1, k], left[i + 2, k], left[i + 3, k]
                e, f, g, h = right[j, k], right[j + 1, k], right[j + 2, k], right[j + 3, k]
                p00, p01, p02, p03 = p00 + a * e, p01 + a * f, p02 + a * g, p03 + a * h
                p10, p11, p12, p13 = p10 + b * e, p11 + b * f, p12 + b * g, p13 + b * h
                p20, p21, p22, p23 = p20 + c * e, p21 + c * f, p22 + c * g, p23 + c * h
                p30, p31, p32, p33 = p30 + d * e, p31 + d * f, p32 + d * g, p33 + d * h
            out[i, j] += p00
            out[i, j + 1] += p01
            out[i, j + 2] += p02
            out[i, j + 3] += p03
            out[i + 1, j] += p10
            out[i + 1, j + 1] += p11
            out[i + 1, j + 2] += p12
            out[i + 1, j + 3] += p13
            out[i + 2, j] += p20
            out[i + 2, j + 1] += p21
            out[i + 2, j + 2] += p22
            out[i + 2, j + 3] += p23
            out[i + 3, j] += p30
            out[i + 3, j + 1] += p31
            out[i + 3, j + 2] += p32
            out[i + 3, j + 3] += p33


def symmetric(lower: np.ndarray, features: int) -> np.ndarray:
    """The whole of what `add_products` makes, without the padding; of the last two axes."""
    part = np.tril(lower[..., :features, :features])
    return part + np.swapaxes(np.tril(part, -1), -1, -2)
