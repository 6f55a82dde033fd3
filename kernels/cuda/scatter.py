"""Moments of features by class, of rows on a device; see `treadle.kernels.scatter`.

Two passes over the rows, instead of the host's one that merges tiles: means first, then sums of products of
deviations from them. Values are taken from the class's first row before anything else, in both, so that large
values cost no digits and the squares of a constant are exactly 0 (Chan, Golub and LeVeque, "Algorithms for
computing the sample variance", The American Statistician 37, 1983: the two-pass algorithm on shifted data).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from treadle.kernels.cuda.arrays import Work, as_device_array, download, on_host, upload
from treadle.kernels.cuda.tiles import (
    MOST_PARTS,
    Columns,
    as_device_matrix,
    column_sums,
    cut,
    parts_of_products,
    products,
    taken,
    value_of,
)
from treadle.kernels.scatter import Kind, Scatter, shape_of
from treadle.kernels.tiles import groups


def scatter(
    matrix: Any,
    codes: Any,
    classes: int,
    kind: Kind,
    index: Any,
    weight: Any | None = None,
    extra: Any | None = None,
) -> Scatter:
    """As the host's, which has the parameters; `matrix` is a device array, the others are on either side.

    The result is on the host: it does not grow with the rows. Rows are sorted into classes there, too.

    Raises
    ------
    RequestError
        The matrix is not float32 (rows, features), or has no features.
    """
    rows = as_device_matrix(matrix)
    d = rows.shape[1] + (0 if extra is None else extra.shape[1])
    order, starts = groups(on_host(codes), on_host(index), classes)
    shape = shape_of(kind, classes, d)
    if not len(order):
        return Scatter(kind, np.zeros(classes), np.zeros((classes, d)), np.zeros((classes, d)), np.zeros(shape))
    work = Work()
    places = upload(np.ascontiguousarray(order, dtype=np.int64))
    more = upload(np.zeros((1, 1))) if extra is None else as_device_array(extra)
    heavy = None if weight is None else taken(as_device_array(weight), places, work)
    # A class without rows has any row for its first: nothing is read by it.
    origins = order[np.minimum(starts[:-1], len(order) - 1)].astype(np.int64)
    none, ones = upload(np.zeros((classes, d))), upload(np.ones(d))
    first = work.empty((classes, d), np.float64)
    take_rows[(classes, 1), (32, 1), work.stream](rows, more, upload(origins), none, none, ones, first)
    ranges = np.stack([starts[:-1], starts[1:]], axis=1)
    sums = column_sums(Columns(rows, more, places, first, none, ones), heavy, cut(ranges, MOST_PARTS), work)
    total = sums[:, d]
    some = (total > 0)[:, None]
    shift = np.where(some, sums[:, :d], 0.0) / np.where(some, total[:, None], 1.0)
    # Rows of a class that counts nothing are left out, whatever their values are.
    ranges = ranges[:, :1] + np.where(some, ranges - ranges[:, :1], 0)
    columns = Columns(rows, more, places, first, upload(shift), ones)
    squares = column_sums(columns, heavy, cut(ranges, MOST_PARTS), work, squared=True)[:, :d]
    found = np.zeros(shape)
    if kind != "squares":
        found = products(columns, heavy, cut(ranges, parts_of_products(d), kind == "within"), d, work)
    mean = np.where(some, download(first) + shift, 0.0)
    return Scatter(kind, total, mean, squares, found)


@cuda.jit(cache=True)
def take_rows(matrix, extra, origins, none, zero, ones, first):  # type: ignore[no-untyped-def]
    """first[c] = the row origins[c]; a block has a class, `none` and `zero` are zeros like it, `ones` are 1."""
    c = cuda.blockIdx.x
    for j in range(cuda.threadIdx.x, first.shape[1], cuda.blockDim.x):
        first[c, j] = value_of(matrix, extra, origins[c], j, c, none, zero, ones)
