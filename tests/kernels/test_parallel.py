"""Ranges of rows for threads: together all rows, and none with much more work than another."""

from __future__ import annotations

import threading

import numba
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.benchmarks.timing import threads
from treadle.kernels.parallel import RANGES_A_THREAD, SMALLEST_SHARE, over_rows


def ranges(rows: int, block: int, number: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    with threads(number):
        over_rows(lambda low, high: found.append((low, high)), rows, block)
    return sorted(found)


@given(st.integers(0, 300_000), st.integers(1, 300).map(lambda n: n * SMALLEST_SHARE), st.integers(1, 2))
def test_every_row_once(rows: int, block: int, number: int) -> None:
    number = min(number, numba.config.NUMBA_NUM_THREADS)
    assert [row for pair in ranges(rows, block, number) for row in range(*pair)] == list(range(rows))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
@given(st.integers(10_000, 10_000_000), st.integers(1, 300).map(lambda n: n * SMALLEST_SHARE))
def test_threads_have_the_same_work(rows: int, block: int) -> None:
    lengths = [high - low for low, high in ranges(rows, block, 2)]
    length = lengths[0]
    assert set(lengths[:-1]) <= {length}
    # As many for each thread, but for what rounding to whole shares leaves over.
    assert rows / 2 <= -(-len(lengths) // 2) * length <= rows / 2 + (RANGES_A_THREAD + 1) * SMALLEST_SHARE
    assert length <= block or len(lengths) > RANGES_A_THREAD


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core")
def test_two_threads_work_at_once() -> None:
    meeting = threading.Barrier(2, timeout=60)
    with threads(2):
        over_rows(lambda low, high: meeting.wait() and None, 1000, 512)
    assert not meeting.broken


def test_an_error_of_a_range_reaches_the_caller() -> None:
    def fail(low: int, high: int) -> None:
        if high == 1000:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        over_rows(fail, 1000, 512)
