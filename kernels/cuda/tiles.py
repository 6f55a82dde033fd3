"""Weighted sums over rows on a device: of columns, and of products of two columns; see `treadle.kernels.tiles`.

Rows are taken in the order of a list, which is cut into parts of one class each. A block of threads adds up a part
in float64 and writes its sums; another kernel adds those of the parts in their order. Nothing is added by atomics,
so that the bits of a result depend on the rows alone.

Products of all pairs of columns are made as matrix products are: a block has a square of them, `tile` columns on
each side, and holds some rows of both sides in shared memory, moved, scaled and weighted on the way; each thread
adds up 16 products in registers. Only squares on and below the diagonal are made.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from treadle.errors import RequestError
from treadle.kernels.cuda.arrays import Work, as_device_array, blocks_for, download, threads_for, upload
from treadle.kernels.tiles import symmetric

EACH = 4
"""Products a thread are a square of so many."""
TILE_ROWS = 32
"""Of a tile in shared memory: 32 KiB for two sides of 64 columns."""
SIDES = (8, 16)
"""Threads on a side of a block, so that a tile has 32 or 64 columns."""
NARROW_COLUMNS = 96
"""Up to so many columns tiles have the first side, of which less is left empty. Not measured."""
COLUMN_THREADS, ROW_THREADS = 32, 8
"""Of a block that adds up columns, at most."""
COLUMN_BLOCK = COLUMN_THREADS, ROW_THREADS
"""As it is launched: neighbours have neighbouring columns, whose values lie side by side."""
PART_ROWS = 256
"""Of a part, at least, where a class has as many."""
MOST_PARTS = 1024
"""Into which rows are cut, but for those that classes add."""
PARTIAL_BYTES = 256 * 2**20
"""Products of parts that are worked on together."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Rows and how their values are read: ((value - first) - shift) * scale, all float64; all on a device.

    After the last column there is one more, which is 1 in every row.
    """

    matrix: Any
    """float32 (rows, features)."""
    extra: Any
    """float64 (rows, any): columns after those of the matrix; anything where there are none."""
    order: Any
    """int64: the rows to take, class by class."""
    first: Any
    """float64 (classes, columns)."""
    shift: Any
    """float64 (classes, columns)."""
    scale: Any
    """float64 (columns,)."""

    @property
    def count(self) -> int:
        """Without the one that is 1."""
        return int(self.scale.shape[0])


@dataclass(frozen=True, eq=False)
class Parts:
    """`part` (parts, 3) int64: the class of a part, and its rows as places of the order, from and to.

    `start` (slots + 1,): the parts that are summed up into each slot.
    """

    part: NDArray[np.int64]
    start: NDArray[np.int64]


def as_device_matrix(matrix: Any) -> Any:
    """A device array (rows, features) in any order, as a kernel takes it.

    Raises
    ------
    RequestError
        It is a frame, has no two axes or no features, or is not float32.
    """
    is_frame = hasattr(matrix, "columns")
    if is_frame or len(matrix.shape) != 2 or not matrix.shape[1] or matrix.dtype != np.float32:
        what = "a frame" if is_frame else f"{matrix.dtype} of shape {tuple(matrix.shape)}"
        raise RequestError(f"Sums of rows on a GPU are made of a float32 array (rows, features), and this is {what}.")
    return as_device_array(matrix)


def cut(ranges: NDArray[np.int64], wanted: int, together: bool = False) -> Parts:
    """About `wanted` parts of classes whose rows are at places of the order, from and to: (classes, 2).

    There is a slot for each class, or a single one with `together`.
    """
    begin, end = ranges.T
    lengths = end - begin
    rows = max(PART_ROWS, -(-int(lengths.sum()) // wanted))
    counts = -(-lengths // rows)
    start = np.concatenate([[0], np.cumsum(counts)])
    code = np.repeat(np.arange(len(lengths)), counts)
    place = begin[code] + (np.arange(len(code)) - start[code]) * rows
    part = np.stack([code, place, np.minimum(place + rows, end[code])], axis=1)
    return Parts(part.astype(np.int64), (start[[0, -1]] if together else start).astype(np.int64))


def column_sums(
    columns: Columns,
    heavy: Any | None,
    parts: Parts,
    work: Work,
    *,
    squared: bool = False,
    begin: int = 0,
) -> NDArray[np.float64]:
    """(slots, columns + 1 - begin): weighted sums of values, or of their squares, from column `begin` on.

    `heavy` is the weight of each place in the order, float64 on the device; 1 when None.
    """
    width = columns.count + 1 - begin
    slots = len(parts.start) - 1
    if not len(parts.part):
        return np.zeros((slots, width))
    partial = work.empty((len(parts.part), width), np.float64)
    grid = (len(parts.part), -(-width // COLUMN_BLOCK[0]))
    add_columns[grid, COLUMN_BLOCK, work.stream](
        *_given(columns), *_weights(heavy), upload(parts.part), begin, 1 if squared else 0, partial
    )
    out = work.empty((slots, width), np.float64)
    _reduce(partial, parts.start, True, out, work)
    return download(out)


def products(columns: Columns, heavy: Any | None, parts: Parts, count: int, work: Work) -> NDArray[np.float64]:
    """(slots, count, count): weighted sums of the products of the first `count` columns; symmetric to the bit.

    `heavy` as for `column_sums`.
    """
    slots = len(parts.start) - 1
    if not len(parts.part) or not count or not slots:
        return np.zeros((slots, count, count))
    side = SIDES[0] if count <= NARROW_COLUMNS else SIDES[1]
    tile = side * EACH
    across = -(-count // tile)
    pairs = across * (across + 1) // 2
    most = min(len(parts.part), max(1, PARTIAL_BYTES // (8 * pairs * tile * tile)))
    partial = work.empty((most, pairs * tile * tile), np.float64)
    out = work.empty((slots, pairs * tile * tile), np.float64)
    part, weights = upload(parts.part), _weights(heavy)
    for base in range(0, len(parts.part), most):
        here = min(most, len(parts.part) - base)
        products_kernel(side)[(here, pairs), (side, side), work.stream](
            *_given(columns), *weights, part, base, count, partial
        )
        _reduce(partial, np.clip(parts.start - base, 0, here), base == 0, out, work)
    squares = download(out).reshape(slots, pairs, tile, tile)
    lower = np.zeros((slots, across * tile, across * tile))
    for pair, (a, b) in enumerate(zip(*np.tril_indices(across), strict=True)):
        lower[:, a * tile : (a + 1) * tile, b * tile : (b + 1) * tile] = squares[:, pair]
    return symmetric(lower, count)


def parts_of_products(count: int) -> int:
    """How many parts are wanted for the products of so many columns."""
    return max(1, min(MOST_PARTS, PARTIAL_BYTES // max(1, 8 * count * count)))


def taken(values: Any, order: Any, work: Work) -> Any:
    """values[order] on the device, float64."""
    rows = order.shape[0]
    out = work.empty(rows, np.float64)
    threads = threads_for(rows)
    take[blocks_for(rows, threads), threads, work.stream](values, order, out)
    return out


def _given(columns: Columns) -> tuple[Any, ...]:
    return columns.matrix, columns.extra, columns.order, columns.first, columns.shift, columns.scale


def _weights(heavy: Any | None) -> tuple[Any, int]:
    return (upload(np.zeros(1)), 0) if heavy is None else (heavy, 1)


def _reduce(partial: Any, start: NDArray[np.int64], fresh: bool, out: Any, work: Work) -> None:
    elements = out.shape[0] * out.shape[1]
    threads = threads_for(elements)
    grid = blocks_for(elements, threads)
    add_parts[grid, threads, work.stream](partial, upload(start), 1 if fresh else 0, out)


@cuda.jit(cache=True)
def take(values, order, out):  # type: ignore[no-untyped-def]
    """out[k] = values[order[k]]."""
    for k in range(cuda.grid(1), len(out), cuda.gridDim.x * cuda.blockDim.x):
        out[k] = values[order[k]]


@cuda.jit(cache=True)
def add_parts(partial, start, fresh, out):  # type: ignore[no-untyped-def]
    """out[s] (+)= the sum of partial[start[s]:start[s + 1]], in their order; both (any, elements)."""
    elements = out.shape[1]
    for i in range(cuda.grid(1), out.shape[0] * elements, cuda.gridDim.x * cuda.blockDim.x):
        slot, element = i // elements, i % elements
        total = 0.0
        if fresh == 0:
            total = out[slot, element]
        for p in range(start[slot], start[slot + 1]):
            total += partial[p, element]
        out[slot, element] = total


@cuda.jit(device=True, inline="always")
def value_of(matrix, extra, row, j, c, first, shift, scale):  # type: ignore[no-untyped-def]
    """Of a row of class c in column j, which may be the one after the last."""
    value = 1.0
    if j < matrix.shape[1]:
        value = ((np.float64(matrix[row, j]) - first[c, j]) - shift[c, j]) * scale[j]
    elif j < scale.shape[0]:
        value = ((extra[row, j - matrix.shape[1]] - first[c, j]) - shift[c, j]) * scale[j]
    return value


@cuda.jit(cache=True)
def add_columns(  # type: ignore[no-untyped-def]
    matrix, extra, order, first, shift, scale, heavy, weighted, part, begin, squared, partial
):
    """partial[p, j] = the sum of part p in column begin + j; the grid is (parts, groups of columns)."""
    sums = cuda.shared.array((ROW_THREADS, COLUMN_THREADS), np.float64)
    p, lane, line = cuda.blockIdx.x, cuda.threadIdx.x, cuda.threadIdx.y
    j = cuda.blockIdx.y * cuda.blockDim.x + lane
    c, end = part[p, 0], part[p, 2]
    total = 0.0
    if j < partial.shape[1]:
        for k in range(part[p, 1] + line, end, cuda.blockDim.y):
            value = value_of(matrix, extra, order[k], begin + j, c, first, shift, scale)
            if squared != 0:
                value *= value
            if weighted != 0:
                value *= heavy[k]
            total += value
    sums[line, lane] = total
    cuda.syncthreads()
    if line == 0 and j < partial.shape[1]:
        for other in range(1, cuda.blockDim.y):
            total += sums[other, lane]
        partial[p, j] = total


@functools.cache
def products_kernel(side: int) -> Any:
    """A kernel for blocks of so many threads on a side; its grid is (parts from `base` on, pairs of tiles)."""
    tile, count = side * EACH, EACH * EACH

    @cuda.jit(cache=True)
    def add_products(  # type: ignore[no-untyped-def]
        matrix, extra, order, first, shift, scale, heavy, weighted, part, base, columns, partial
    ):
        left = cuda.shared.array((TILE_ROWS, tile), np.float64)
        right = cuda.shared.array((TILE_ROWS, tile), np.float64)
        sums = cuda.local.array(count, np.float64)
        p, pair = cuda.blockIdx.x, cuda.blockIdx.y
        # Pairs are the lower triangle row by row: (0, 0), (1, 0), (1, 1), (2, 0) ...
        a = 0
        while (a + 1) * (a + 2) // 2 <= pair:
            a += 1
        b = pair - a * (a + 1) // 2
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        c, end = part[base + p, 0], part[base + p, 2]
        for i in range(count):
            sums[i] = 0.0
        for begin in range(part[base + p, 1], end, TILE_ROWS):
            rows = min(TILE_ROWS, end - begin)
            cuda.syncthreads()
            for e in range(y * side + x, rows * tile, side * side):
                k, f = e // tile, e % tile
                row = order[begin + k]
                of_left, of_right = 0.0, 0.0
                if a * tile + f < columns:
                    of_left = value_of(matrix, extra, row, a * tile + f, c, first, shift, scale)
                if b * tile + f < columns:
                    of_right = value_of(matrix, extra, row, b * tile + f, c, first, shift, scale)
                if weighted != 0:
                    of_left *= heavy[begin + k]
                left[k, f], right[k, f] = of_left, of_right
            cuda.syncthreads()
            for k in range(rows):
                for i in range(EACH):
                    for j in range(EACH):
                        # Columns of a thread are a side apart: neighbours read neighbouring numbers.
                        sums[i * EACH + j] += left[k, y + i * side] * right[k, x + j * side]
        for i in range(EACH):
            for j in range(EACH):
                partial[p, (pair * tile + y + i * side) * tile + x + j * side] = sums[i * EACH + j]

    return add_products
