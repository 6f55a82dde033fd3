"""Threads over ranges of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba

SMALLEST_SHARE = 64
"""Rows below which a thread is not worth starting; ranges are whole numbers of them."""
RANGES_A_THREAD = 8
"""Most ranges for each thread. Several, since a thread whose core is busy with other work then gets fewer of them."""


def over_rows(work: Callable[[int, int], None], rows: int, block: int) -> None:
    """Calls `work(low, high)` on ranges that cover all rows, in as many threads as Numba is set to use.

    The ranges are equally long, at most `block` rows where that does not make too many of them, and as many
    for each thread. `work` must release the GIL to gain from threads.
    """
    threads = min(numba.get_num_threads(), -(-rows // SMALLEST_SHARE))
    if threads <= 1:
        if rows:
            work(0, rows)
        return
    number = threads * min(-(-rows // (threads * block)), RANGES_A_THREAD)
    length = -(-rows // (number * SMALLEST_SHARE)) * SMALLEST_SHARE
    futures = [_pool(threads).submit(work, low, min(low + length, rows)) for low in range(0, rows, length)]
    for future in futures:
        future.result()


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="treadle-kernels")
