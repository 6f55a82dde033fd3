"""Loss, gradient and Hessian of logistic regression of rows on a device; see `treadle.kernels.logistic`.

A thread finds the probabilities of a row, and keeps them; gradient and Hessian are then weighted sums of columns
and of products of columns, one for each output and each pair of outputs, whose weights are made of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from treadle.kernels.cuda.arrays import Work, as_device_array, blocks_for, threads_for, upload
from treadle.kernels.cuda.tiles import (
    MOST_PARTS,
    Columns,
    as_device_matrix,
    column_sums,
    cut,
    parts_of_products,
    products,
)
from treadle.kernels.logistic import Curve

CHANCE_ROWS = 64
"""Threads of a block that finds probabilities, at most; each has a row at a time."""
CHANCE_THREADS = CHANCE_ROWS
"""As it is launched."""
CHUNK = 32
"""Features of these rows that are in shared memory together."""
CHUNK_STRIDE = CHUNK + 1
"""Between rows there, so that the rows of neighbours begin in different banks."""


def curve(
    matrix: Any,
    codes: Any,
    index: Any,
    weight: Any | None,
    factors: NDArray[np.float64],
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    coefficients: NDArray[np.float64],
    hessian: bool = True,
) -> Curve:
    """As the host's, which has the parameters; `matrix` is a device array, codes, index and weight on either side.

    The result is on the host: it does not grow with the rows.

    Raises
    ------
    RequestError
        The matrix is not float32 (rows, features), or has no features.
    """
    rows = as_device_matrix(matrix)
    q, m = coefficients.shape
    n = index.shape[0]
    if not n:
        return Curve(0.0, np.zeros((q, m)), np.zeros((q if hessian else 0, q, m, m)))
    work = Work()
    order, own = as_device_array(index), as_device_array(codes)
    weights = upload(np.zeros(1)) if weight is None else as_device_array(weight)
    moved, scaled = upload(shift[None]), upload(scale)
    chance, mass, heavy = work.empty((q, n), np.float64), work.empty(n, np.float64), work.empty(n, np.float64)
    find_chances[blocks_for(n, CHANCE_THREADS), CHANCE_THREADS, work.stream](
        rows,
        own,
        order,
        weights,
        0 if weight is None else 1,
        upload(factors),
        moved,
        scaled,
        upload(coefficients),
        chance,
        mass,
        heavy,
    )
    columns = Columns(rows, upload(np.zeros((1, 1))), order, moved, upload(np.zeros((1, m - 1))), scaled)
    ranges = np.array([[0, n]])
    parts = cut(ranges, MOST_PARTS)
    # The losses weigh the column that is 1.
    loss = float(column_sums(columns, heavy, parts, work, begin=m - 1)[0, 0])
    threads = threads_for(n)
    launch = blocks_for(n, threads), threads, work.stream
    gradient = np.empty((q, m))
    for a in range(q):
        find_slopes[launch](own, order, mass, chance, a, heavy)
        gradient[a] = column_sums(columns, heavy, parts, work)[0]
    whole = np.empty((q if hessian else 0, q, m, m))
    if hessian:
        parts = cut(ranges, parts_of_products(m))
        for a in range(q):
            for b in range(a + 1):
                find_bends[launch](mass, chance, a, b, heavy)
                whole[a, b] = whole[b, a] = products(columns, heavy, parts, m, work)[0]
    return Curve(loss, gradient, whole)


@cuda.jit(cache=True)
def find_chances(  # type: ignore[no-untyped-def]
    matrix, codes, order, weight, weighted, factors, shift, scale, coefficients, chance, mass, losses
):
    """Of the row at place k: probabilities chance[:, k], what it counts, mass[k], and that times its loss."""
    tile = cuda.shared.array((CHANCE_ROWS, CHUNK_STRIDE), np.float64)
    n, q, d = order.shape[0], chance.shape[0], scale.shape[0]
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    for begin in range(cuda.blockIdx.x * threads, n, cuda.gridDim.x * threads):
        k = begin + lane
        if k < n:
            for a in range(q):
                chance[a, k] = coefficients[a, d]
        for start in range(0, d, CHUNK):
            width = min(CHUNK, d - start)
            cuda.syncthreads()
            for e in range(lane, min(threads, n - begin) * CHUNK, threads):
                r, f = e // CHUNK, e % CHUNK
                if f < width:
                    j = start + f
                    tile[r, f] = (np.float64(matrix[order[begin + r], j]) - shift[0, j]) * scale[j]
            cuda.syncthreads()
            if k < n:
                for a in range(q):
                    margin = chance[a, k]
                    for f in range(width):
                        margin += coefficients[a, start + f] * tile[lane, f]
                    chance[a, k] = margin
        if k < n:
            row = order[k]
            code = np.int64(codes[row])
            mass[k] = factors[code]
            if weighted != 0:
                mass[k] *= weight[row]
            if q == 1:
                margin = chance[0, k]
                small = math.exp(-abs(margin))
                loss = math.log1p(small) + max(margin, 0.0)
                if code == 1:
                    loss -= margin
                chance[0, k] = (1.0 if margin >= 0.0 else small) / (1.0 + small)
            else:
                top = chance[0, k]
                for a in range(1, q):
                    top = max(top, chance[a, k])
                loss = top - chance[code, k]
                whole = 0.0
                for a in range(q):
                    part = math.exp(chance[a, k] - top)
                    chance[a, k] = part
                    whole += part
                for a in range(q):
                    chance[a, k] /= whole
                loss += math.log(whole)
            losses[k] = mass[k] * loss


@cuda.jit(cache=True)
def find_slopes(codes, order, mass, chance, a, heavy):  # type: ignore[no-untyped-def]
    """heavy[k] = the derivative of the loss by the margin of output a."""
    own = 1 if chance.shape[0] == 1 else a
    for k in range(cuda.grid(1), heavy.shape[0], cuda.gridDim.x * cuda.blockDim.x):
        apart = chance[a, k]
        if np.int64(codes[order[k]]) == own:
            apart -= 1.0
        heavy[k] = mass[k] * apart


@cuda.jit(cache=True)
def find_bends(mass, chance, a, b, heavy):  # type: ignore[no-untyped-def]
    """heavy[k] = the second derivative of the loss by the margins of outputs a and b."""
    for k in range(cuda.grid(1), heavy.shape[0], cuda.gridDim.x * cuda.blockDim.x):
        apart = -chance[b, k]
        if a == b:
            apart += 1.0
        heavy[k] = mass[k] * chance[a, k] * apart
