"""Rows in parts that fit a device, and on the host when none does.

There is no GPU here: stand-ins take the place of the copies to and from one, and of its memory. The copies
themselves run in Numba's simulator, in tests of whole jobs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.engine import device
from treadle.engine.backend import Backend
from treadle.engine.device import is_out_of_memory, on_device
from treadle.kernels.cuda import arrays


class OnDevice:
    """Rows that lie on a device."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows


class Full(Exception):
    """What a library raises when a device is full."""


def run(matrix: np.ndarray, memory: int, error: Exception | None = None) -> tuple[np.ndarray, int, list[int]]:
    """Sums of rows on a device that has memory for so many rows; also how long the parts were that it computed."""
    computed: list[int] = []

    def sums(rows: Any) -> Any:
        if isinstance(rows, np.ndarray):
            return rows.sum(axis=1)
        if len(rows.rows) > memory:
            raise error or MemoryError("std::bad_alloc: out_of_memory: CUDA error")
        computed.append(len(rows.rows))
        return OnDevice(rows.rows.sum(axis=1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "upload", OnDevice)
        patch.setattr(arrays, "download", lambda values: values.rows)
        patch.setattr(device, "FEWEST_ROWS", 4)
        values, on_host = on_device(sums, matrix)
    return values, on_host, computed


@given(st.integers(1, 200), st.integers(0, 250))
def test_every_row_once_and_in_its_place(rows: int, memory: int) -> None:
    matrix = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    values, on_host, computed = run(matrix, memory)
    np.testing.assert_array_equal(values, matrix.sum(axis=1))
    assert sum(computed) + on_host == rows
    assert max(computed, default=0) <= memory
    if memory >= 4:
        assert on_host == 0
    if memory >= rows:
        assert computed == [rows]
    if memory == 0:
        assert on_host == rows


def test_half_the_rows_then_half_of_those() -> None:
    assert run(np.zeros((100, 1), np.float32), 30)[2] == [25, 25, 25, 25]
    values, on_host, computed = run(np.zeros((10, 1), np.float32), 2)
    assert (on_host, computed) == (6, [2, 2])
    assert len(values) == 10


@pytest.mark.parametrize(
    "said",
    [
        MemoryError("std::bad_alloc"),
        Full("[CUresult.CUDA_ERROR_OUT_OF_MEMORY] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"),
        Full("cudaErrorMemoryAllocation: out of memory"),
        type("OutOfMemoryError", (Exception,), {})("Out of memory allocating 1,000 bytes"),
    ],
)
def test_each_library_says_it_in_its_own_way(said: Exception) -> None:
    assert is_out_of_memory(said)
    assert run(np.zeros((8, 1), np.float32), 0, said)[1] == 8


def test_other_errors_are_not_hidden() -> None:
    assert not is_out_of_memory(ValueError("misaligned address"))
    with pytest.raises(Full, match="misaligned address"):
        run(np.zeros((8, 1), np.float32), 0, Full("misaligned address"))


def test_the_cpu_gets_the_rows_as_they_are() -> None:
    matrix = np.ones((3, 2), np.float32)
    values, on_host = Backend().compute(lambda rows: rows, matrix)
    assert values is matrix
    assert on_host == 0
