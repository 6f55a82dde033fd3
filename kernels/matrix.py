"""Writing columns into a matrix of rows."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import read_only


def put_codes(codes: NDArray[np.int32], first: int, out: NDArray[Any], column: int, width: int) -> None:
    """Makes `width` 0/1 columns of `out` (rows, columns), from `column` on, of the codes from `first` on."""
    _put_codes(read_only(codes), first, out, column, width)


@numba.njit(nogil=True, cache=True)
def _put_codes(codes, first, out, column, width):  # type: ignore[no-untyped-def]
    for i in range(len(codes)):
        for j in range(width):
            out[i, column + j] = 0
        code = codes[i] - first
        if 0 <= code < width:
            out[i, column + code] = 1
