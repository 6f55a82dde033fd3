"""Rows as the kernels read them: one matrix, or columns that stay where they lie.

What is given as a table keeps its columns: those that are float32 or float64 without nulls and in one
piece are read in place, by their addresses; others become float64 when rows of them are taken, some
thousand rows at a time, so that a large table is never converted as a whole. Columns are the features by
their position, since a forest has no names.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RequestError, shortened
from treadle.kernels.forest import Forest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CONVERTED_ROWS = 16_384
"""Rows of columns that are converted at a time."""
FEW_VALUES = 65_536
"""Values up to which an array or a pandas frame is copied: getting at its columns one by one takes longer."""
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
NUMBER_KINDS = frozenset("biuf")
"""Booleans, integers and floats, as `numpy.dtype.kind`."""

type Part = Callable[[int, int], NDArray[Any]]
"""The rows from one number to another of a column: float32 or float64 (rows,)."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Rows `first` to `first + count` of columns that are read in place, at any step between rows."""

    columns: Sequence[NDArray[Any]] | NDArray[Any]
    """(features,) of (all rows,), float32 or float64, aligned. They keep what `place` points into alive."""
    place: NDArray[np.int64]
    """(features, 3): address of row 0, bytes from a row to the next, bytes of a number."""
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> Columns:
        low, high = _ends(part, self.count)
        return Columns(self.columns, self.place, self.first + low, high - low)


@dataclass(frozen=True, eq=False)
class Convertible:
    """Columns of which some are converted when rows are taken."""

    columns: tuple[NDArray[Any] | Part, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> Columns:
        low, high = _ends(part, self.count)
        taken = [c[low:high] if isinstance(c, np.ndarray) else c(low, high) for c in self.columns]
        return _in_place(taken, high - low)


type Rows = NDArray[Any] | Columns | Convertible
"""A matrix (rows, features), float32 or float64, C-contiguous, aligned and writeable; or columns.
`len` gives the number of rows, a slice some of them."""


def as_rows(forest: Forest, values: Any) -> Rows:
    """Rows with the features of a forest, not copied where they can be read in place.

    Parameters
    ----------
    values
        An array (rows, features) in any memory order; or a pandas DataFrame, a pyarrow Table or
        RecordBatch, or another table that gives Arrow data by the PyCapsule protocol, such as a polars
        DataFrame, with columns of floats, integers or booleans in the order of the features. Nulls
        count as missing. Integers become float64 as in NumPy: beyond 2**53 the nearest one.

    Raises
    ------
    RequestError
        The number of columns is not the forest's, or a column is not of numbers.
    """
    if isinstance(values, np.ndarray):
        return _from_matrix(forest, values)
    if isinstance(values, Columns | Convertible):
        _check_shape(forest, (len(values), len(values.columns)))
        return values
    if _is_pandas(values):
        return _from_pandas(forest, values)
    if hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__"):
        return _from_arrow(forest, values)
    return _from_matrix(forest, np.asarray(values))


def as_matrix(rows: Rows) -> NDArray[Any]:
    """A new matrix (rows, features), C-contiguous: float32 when all columns are, else float64."""
    if isinstance(rows, np.ndarray):
        return rows.copy()
    taken = rows[:]
    narrow = bool((taken.place[:, 2] == np.dtype(np.float32).itemsize).all())
    matrix = np.empty((taken.count, len(taken.place)), dtype=np.float32 if narrow else np.float64)
    for number, column in enumerate(taken.columns):
        matrix[:, number] = column[taken.first : taken.first + taken.count]
    return matrix


def blocks(rows: Rows, low: int, high: int, size: int) -> Iterator[tuple[int, NDArray[Any] | Columns]]:
    """The rows from `low` to `high`, at most `size` at a time, each time after the number of the first."""
    if isinstance(rows, Convertible):
        span = max(1, CONVERTED_ROWS // size) * size
        for begin in range(low, high, span):
            part = rows[begin : min(begin + span, high)]
            for first in range(0, len(part), size):
                yield begin + first, part[first : first + size]
        return
    for first in range(low, high, size):
        yield first, rows[first : min(first + size, high)]


def _ends(part: slice, count: int) -> tuple[int, int]:
    low, high, step = part.indices(count)
    assert step == 1, "rows are taken one after the other"
    return low, max(low, high)


def _check_shape(forest: Forest, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or shape[1] != forest.n_features:
        raise RequestError(
            f"The forest has {forest.n_features} features, and the rows have the shape {shape}; "
            f"give an array (rows, {forest.n_features}), or a table with so many columns."
        )


def _is_float(values: NDArray[Any]) -> bool:
    return values.dtype in FLOATS and values.flags.aligned


def _from_matrix(forest: Forest, matrix: NDArray[Any]) -> NDArray[Any] | Columns:
    _check_shape(forest, matrix.shape)
    if matrix.dtype in FLOATS:
        if matrix.flags.carray:
            return matrix
        # Numba would compile anew for each memory order, and for arrays that must not be written.
        if matrix.size <= FEW_VALUES or not matrix.flags.aligned:
            return matrix.copy()
        return _in_matrix(matrix)
    if matrix.dtype.kind not in NUMBER_KINDS:
        raise RequestError(f"Rows of type {matrix.dtype} are not numbers; give float32 or float64.")
    return matrix.astype(np.float64, order="C")


def _in_matrix(matrix: NDArray[Any]) -> Columns:
    place = np.empty((matrix.shape[1], 3), dtype=np.int64)
    place[:, 0] = matrix.__array_interface__["data"][0] + matrix.strides[1] * np.arange(matrix.shape[1])
    place[:, 1:] = matrix.strides[0], matrix.itemsize
    return Columns(matrix.T, place, 0, len(matrix))


def _is_pandas(values: Any) -> bool:
    if "pandas" not in sys.modules:
        return False
    import pandas as pd

    return isinstance(values, pd.DataFrame)


def _from_pandas(forest: Forest, frame: pd.DataFrame) -> Rows:
    _check_shape(forest, frame.shape)
    if {dtype.kind for dtype in frame.dtypes} <= NUMBER_KINDS:
        if frame.size <= FEW_VALUES:
            return _from_matrix(forest, frame.to_numpy(dtype=np.float64, na_value=np.nan))
        # A frame of one type is one array inside, which this gives; for others it is an error.
        with contextlib.suppress(ValueError):
            matrix = np.asarray(frame, copy=False)
            if matrix.dtype in FLOATS:
                return _from_matrix(forest, matrix)
    return _together([_pandas_column(n, series) for n, (_, series) in enumerate(frame.items())], len(frame))


def _pandas_column(number: int, series: pd.Series[Any]) -> NDArray[Any] | Part:
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        return _arrow_column(number, str(series.name), pa.chunked_array(series))
    if dtype.kind not in NUMBER_KINDS:
        raise _not_numbers(number, str(series.name), str(dtype), coded=isinstance(dtype, pd.CategoricalDtype))
    if not isinstance(dtype, np.dtype):
        return functools.partial(_pandas_part, series)
    values = series.to_numpy()
    return values if _is_float(values) else functools.partial(_array_part, values)


def _pandas_part(series: pd.Series[Any], low: int, high: int) -> NDArray[Any]:
    return series.iloc[low:high].to_numpy(dtype=np.float64, na_value=np.nan)


def _from_arrow(forest: Forest, values: Any) -> Rows:
    import pyarrow as pa

    try:
        table = values if isinstance(values, pa.Table) else pa.table(values)
    except pa.ArrowException as error:
        raise RequestError(f"Rows of type {type(values).__name__} are no table: {error}; give a table.") from error
    _check_shape(forest, table.shape)
    names = table.schema.names
    return _together([_arrow_column(n, names[n], column) for n, column in enumerate(table.columns)], len(table))


def _arrow_column(number: int, name: str, column: pa.ChunkedArray) -> NDArray[Any] | Part:
    import pyarrow as pa

    kind = column.type
    if kind in (pa.float32(), pa.float64()) and not column.null_count and column.num_chunks == 1:
        values = column.chunk(0).to_numpy()
        if _is_float(values):
            return values
    t = pa.types
    if not (t.is_floating(kind) or t.is_integer(kind) or t.is_boolean(kind) or t.is_null(kind)):
        raise _not_numbers(number, name, str(kind), coded=t.is_dictionary(kind))
    return functools.partial(_arrow_part, column)


def _arrow_part(column: pa.ChunkedArray, low: int, high: int) -> NDArray[Any]:
    import pyarrow as pa

    part = column.slice(low, high - low)
    if pa.types.is_boolean(part.type) or pa.types.is_null(part.type):
        part = part.cast(pa.uint8())
    # Of one chunk NumPy gets the memory itself, where nothing is to be converted.
    values = part.chunk(0).to_numpy(zero_copy_only=False) if part.num_chunks == 1 else part.to_numpy()
    return _array_part(values, 0, len(values))


def _array_part(values: NDArray[Any], low: int, high: int) -> NDArray[Any]:
    part = values[low:high]
    return part if _is_float(part) else part.astype(np.float64)


def _not_numbers(number: int, name: str, kind: str, coded: bool) -> RequestError:
    remedy = "give the codes that the forest was trained on," if coded else "cast or encode it"
    return RequestError(
        f"Column '{shortened(name)}' of the rows, feature {number}, is of type {shortened(kind)}, not of numbers; "
        f"{remedy} as float32 or float64."
    )


def _together(columns: list[NDArray[Any] | Part], count: int) -> Columns | Convertible:
    found = Convertible(tuple(columns), count)
    ready = count <= CONVERTED_ROWS or all(isinstance(column, np.ndarray) for column in columns)
    return found[:] if ready else found


def _in_place(columns: list[NDArray[Any]], count: int) -> Columns:
    found = [(c.__array_interface__["data"][0], c.strides[0], c.itemsize) for c in columns]
    return Columns(columns, np.array(found, dtype=np.int64).reshape(-1, 3), 0, count)
