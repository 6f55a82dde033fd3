"""Threads over ranges of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba

SMALLEST_SHARE = 64
"""Rows below which a thread is not worth starting."""


def over_rows(work: Callable[[int, int], None], rows: int, block: int) -> None:
    """Calls `work(low, high)` on ranges that cover all rows, in as many threads as Numba is set to use.

    The ranges begin at multiples of `block` where there are enough rows, so that each row is in the same
    place of its block however many threads there are. `work` must release the GIL to gain from threads.
    """
    threads = min(numba.get_num_threads(), -(-rows // SMALLEST_SHARE))
    if threads <= 1:
        if rows:
            work(0, rows)
        return
    unit = block if rows >= block * threads else SMALLEST_SHARE
    share = -(-rows // (threads * unit)) * unit
    starts = range(0, rows, share)
    futures = [_pool(threads).submit(work, low, min(low + share, rows)) for low in starts]
    for future in futures:
        future.result()


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="treadle-kernels")
