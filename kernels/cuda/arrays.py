"""Arrays on a device: rows as they come, scratch memory, results."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import config, cuda

from treadle.errors import RequestError
from treadle.kernels.forest import Forest

# Few rows make few blocks, and so do sums of parts: Numba would warn of every such launch.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

ALIGNMENT = None if config.ENABLE_CUDASIM else 16
"""Of arrays in shared memory that are read four numbers at a time; the simulator knows no alignment."""
THREADS = 256
"""Threads of a block, at most."""
FEWEST_THREADS = 64
WANTED_BLOCKS = 256
"""Blocks that keep a large GPU busy: with few rows, blocks have fewer threads so that there are as many."""
MOST_BLOCKS = 4096
"""Of a grid; a block goes on to other rows."""


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """Rows on a device: one matrix (rows, features), or a float32 or float64 array (rows, 1) for each feature."""

    parts: tuple[Any, ...]
    rows: int
    is_matrix: bool

    def __len__(self) -> int:
        return self.rows

    def block(self, first: int, last: int) -> DeviceRows:
        return DeviceRows(tuple(part[first:last] for part in self.parts), last - first, self.is_matrix)


def as_device_rows(forest: Forest, rows: Any) -> DeviceRows:
    """Device arrays and cuDF frames without a copy, where values are float32 or float64 without nulls.

    Raises
    ------
    RequestError
        The number of columns is not the forest's, or values are not numbers.
    """
    if hasattr(rows, "columns"):
        names = list(rows.columns)
        _check_features(forest, (len(rows), len(names)))
        return DeviceRows(tuple(_frame_column(rows, i) for i in range(len(names))), len(rows), is_matrix=False)
    matrix: Any = rows if isinstance(rows, _own_arrays()) else cuda.as_cuda_array(rows)
    _check_features(forest, matrix.shape)
    if matrix.dtype not in (np.float32, np.float64):
        raise RequestError(f"Rows of type {matrix.dtype} on a GPU are not read; give float32 or float64.")
    return DeviceRows((matrix,), matrix.shape[0], is_matrix=True)


def _check_features(forest: Forest, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] != forest.n_features:
        raise RequestError(
            f"The forest has {forest.n_features} features, and the rows have the shape {tuple(shape)}; "
            f"give an array (rows, {forest.n_features})."
        )


def _own_arrays() -> tuple[type, ...]:
    from numba.cuda.cudadrv import devicearray

    return (devicearray.FakeCUDAArray,) if config.ENABLE_CUDASIM else (devicearray.DeviceNDArrayBase,)


def _frame_column(frame: Any, place: int) -> Any:
    """A column of a cuDF frame as (rows, 1), nulls as NaN."""
    column = frame.iloc[:, place]
    if column.dtype not in (np.float32, np.float64):
        if getattr(column.dtype, "kind", "O") not in "biuf":
            raise RequestError(f"Column '{column.name}' of type {column.dtype} is not numbers; encode or drop it.")
        column = column.astype("float64")
    if column.has_nulls:
        column = column.fillna(float("nan"))
    return cuda.as_cuda_array(column.values).reshape(len(frame), 1)


def upload(array: np.ndarray) -> Any:
    """A host array's copy on the current device; an empty one gets an element, as a device has no empty memory."""
    return cuda.to_device(np.ascontiguousarray(array) if array.size else np.zeros((1,) * array.ndim, array.dtype))


def download(array: Any) -> np.ndarray:
    """A device array's copy on the host: of Numba's and of CuPy's."""
    copied: np.ndarray = array.copy_to_host() if hasattr(array, "copy_to_host") else array.get()
    return copied


def as_device_array(array: Any) -> Any:
    """An array as a kernel takes it: one on the device without a copy, one of the host uploaded."""
    if isinstance(array, _own_arrays()):
        return array
    return cuda.as_cuda_array(array) if hasattr(array, "__cuda_array_interface__") else upload(np.asarray(array))


def on_host(array: Any) -> np.ndarray:
    """An array as the host takes it: one of the host as it is, one on the device downloaded."""
    is_device = isinstance(array, _own_arrays()) or hasattr(array, "__cuda_array_interface__")
    return download(array) if is_device else np.asarray(array)


def result(shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """An uninitialised device array for the caller and Numba's view of it: CuPy's where it is installed."""
    if config.ENABLE_CUDASIM or importlib.util.find_spec("cupy") is None:
        array = cuda.device_array(shape, dtype)
        return array, array
    import cupy

    array = cupy.empty(shape, dtype)
    return array, cuda.as_cuda_array(array, sync=False)


class Work:
    """A stream, and the scratch memory of all that was launched in it, kept until `wait`.

    The default stream needs no waiting: what reuses its memory is launched after it.
    """

    def __init__(self, stream: Any = 0) -> None:
        self.stream = stream
        self._scratch: list[Any] = []

    def empty(self, shape: tuple[int, ...] | int, dtype: Any) -> Any:
        """An uninitialised device array."""
        array = result(shape if isinstance(shape, tuple) else (shape,), dtype)[1]
        self._scratch.append(array)
        return array

    def wait(self) -> None:
        """Until everything in the stream is done."""
        self.stream.synchronize()
        self._scratch.clear()


def device_number() -> int:
    """Of the current device."""
    return 0 if config.ENABLE_CUDASIM else int(cuda.get_current_device().id)


def threads_for(rows: int, each: int = 1) -> int:
    """Threads of a block, when a thread has `each` of the rows."""
    threads = THREADS
    while threads > FEWEST_THREADS and rows < WANTED_BLOCKS * threads * each:
        threads //= 2
    return threads


def blocks_for(rows: int, tile: int) -> int:
    """Blocks of a grid, when a block has `tile` of the rows at a time."""
    return min(-(-rows // tile), MOST_BLOCKS)
