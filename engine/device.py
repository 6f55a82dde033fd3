"""What is computed of host rows on a GPU, in as large parts as its memory allows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

FEWEST_ROWS = 1024
"""A part of so few rows that still does not fit is computed on the host."""
ALONE = threading.RLock()
"""Held by the thread of a worker that uses its GPU: the others prepare and write rows, and memory is for one."""


def in_parts[Made](
    rows: int,
    on_device: Callable[[int, int], Made],
    on_host: Callable[[int, int], Made],
    by_row: bool = True,
) -> tuple[list[Made], int]:
    """All rows, by their numbers from and to: the outcomes in order, and how many rows the host computed.

    A part for which the device has too little memory is halved, again and again, and in the end computed on the
    host; at once where a row's outcome depends on the rows beside it (not `by_row`).
    """
    parts, waiting, here = [], [(0, rows)], 0
    while waiting:
        low, high = waiting.pop()
        try:
            with ALONE:
                parts.append(on_device(low, high))
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler, whose traceback would keep the failed part's memory.
        if not by_row or high - low <= FEWEST_ROWS:
            parts.append(on_host(low, high))
            here += high - low
        else:
            middle = (low + high) // 2
            waiting += [(middle, high), (low, middle)]
    return parts, here


def on_device(compute: Callable[[Any], Any], matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """`compute(rows)` of all rows of a host matrix, on the current device; in parts, as `in_parts`.

    Parameters
    ----------
    compute
        Gives one line a row, on the device for rows that lie there, and on the host for others; a row's line does
        not depend on the rows beside it.
    matrix
        float32 (rows, features), at least one row.

    Returns
    -------
    The lines on the host, and how many of them the host computed.
    """
    from treadle.kernels.cuda.arrays import download, upload

    def there(low: int, high: int) -> np.ndarray:
        return download(compute(upload(np.ascontiguousarray(matrix[low:high]))))

    def here(low: int, high: int) -> np.ndarray:
        lines: np.ndarray = compute(np.ascontiguousarray(matrix[low:high]))
        return lines

    parts, rows = in_parts(len(matrix), there, here)
    return parts[0] if len(parts) == 1 else np.concatenate(parts), rows


class Part(Protocol):
    """Training rows of one part."""

    @property
    def matrix(self) -> Any: ...

    @property
    def index(self) -> np.ndarray: ...

    def only(self, index: np.ndarray) -> Any:
        """Some of them, as a dataclass of the same kind."""


def sums_on_device(
    function: Callable[..., Any], merge: Callable[[list[Any]], Any], rows: Part, *args: Any
) -> tuple[Any, int]:
    """`function(rows, *args)` of a part's training rows, whose matrix is brought to the current device.

    Where the device has too little memory, halves are merged, as `on_device` halves; few rows that still do not fit
    are summed up on the host, by the same function.

    Returns
    -------
    The sums, and how many of the rows the host added up.
    """
    from treadle.kernels.cuda.arrays import upload

    def there(low: int, high: int) -> Any:
        part = rows.only(rows.index[low:high])
        # A device has no empty matrix.
        return function(replace(part, matrix=upload(part.matrix)) if high > low else part, *args)

    def here(low: int, high: int) -> Any:
        return function(rows.only(rows.index[low:high]), *args)

    found, on_host = in_parts(len(rows.index), there, here)
    return found[0] if len(found) == 1 else merge(found), on_host


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library says that the device has too little memory: Numba, CuPy, RMM and CUDA say so differently."""
    if isinstance(error, MemoryError):
        return True
    said = f"{type(error).__name__} {error}".upper().replace("_", "").replace(" ", "")
    return "OUTOFMEMORY" in said or "CUDAERRORMEMORYALLOCATION" in said
