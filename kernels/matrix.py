"""Columns into a matrix of rows: a few rows of all columns at a time, so that a line of memory is written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.strides import strided

TILE = 16
"""Rows of a column that are written before the next column's."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of the matrix: `values` (rows,), float32 or float64, at any step between rows."""

    at: int
    values: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ones:
    """`width` 0/1 columns from `at` on: 1 where `codes` (rows,), int32 and contiguous, are `first` and so on."""

    at: int
    width: int
    codes: NDArray[np.int32]
    first: int


def fill(columns: Sequence[Numbers | Ones], out: NDArray[np.float32]) -> bool:
    """Writes columns into `out` (rows, columns); False when a number is infinite as float32."""
    numbers = [
        (c.at, _address(c.values), c.values.strides[0], c.values.itemsize) for c in columns if isinstance(c, Numbers)
    ]
    ones = [(c.at, _address(c.codes), c.width, c.first) for c in columns if isinstance(c, Ones)]
    return bool(_fill(np.array(numbers, np.int64).reshape(-1, 4), np.array(ones, np.int64).reshape(-1, 4), out))


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


@numba.njit(nogil=True, cache=True)
def _fill(numbers, ones, out):  # type: ignore[no-untyped-def]
    rows = len(out)
    finite = True
    for low in range(0, rows, TILE):
        count = min(TILE, rows - low)
        for k in range(len(numbers)):
            at, step = numbers[k, 0], numbers[k, 2]
            address = numbers[k, 1] + low * step
            if numbers[k, 3] == 4:
                finite &= _put(strided(address, count, step, np.float32), at, low, out)
            elif step == 8:
                finite &= _put(strided(address, count, 8, np.float64), at, low, out)
            else:
                finite &= _put(strided(address, count, step, np.float64), at, low, out)
        for k in range(len(ones)):
            at, width, first = ones[k, 0], ones[k, 2], ones[k, 3]
            codes = strided(ones[k, 1] + low * 4, count, 4, np.int32)
            for i in range(count):
                for j in range(width):
                    out[low + i, at + j] = 0
                code = codes[i] - first
                if 0 <= code < width:
                    out[low + i, at + code] = 1
    return finite


@numba.njit(nogil=True, cache=True, forceinline=True)
def _put(values, at, low, out):  # type: ignore[no-untyped-def]
    finite = True
    for i in range(len(values)):
        number = np.float32(values[i])
        finite &= not np.isinf(number)
        out[low + i, at] = number
    return finite
