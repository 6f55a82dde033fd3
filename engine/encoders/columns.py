"""Columns while features are made, and the matrix that they end in.

A column stays a Series until an operation changes it; numbers that operations make are float64 arrays,
and the 0/1 columns of one_hot are views of one array of codes, which become numbers in the matrix only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from treadle.kernels.texts import Texts


NULL, UNSEEN = -1, -2
"""Codes of values without a level; as indices from the end they also find what nulls and unseen values are worth."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_FOLDS = 0x666F6C64
"""Folds are drawn by other numbers than the split, which has taken the rows with the lowest for the test."""


type Column = pd.Series | NDArray[Any] | Indicator
type Columns = dict[str, Column]


@dataclass(frozen=True, eq=False)
class Indicator:
    """1 where `codes`, int32, are `code`, else 0."""

    codes: NDArray[np.int32]
    code: int

    def __len__(self) -> int:
        return len(self.codes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return (self.codes == self.code).astype(dtype or np.float64)


@dataclass(frozen=True, eq=False)
class Training:
    """Which rows operations are fitted on, and by what those that look at the target are cross-fitted."""

    rows: NDArray[np.bool_]
    """(rows,)"""
    keys: NDArray[np.uint64]
    """(rows,): a hash of each row's id, or group, that does not depend on the partitioning."""

    def folds(self, number: int) -> NDArray[np.int64]:
        """The fold of every training row, from 0; -1 for other rows."""
        from treadle.kernels.hashing import mix64

        hashes = mix64(self.keys, _FOLDS) >> np.uint64(32)
        return np.where(self.rows, ((hashes * np.uint64(number)) >> np.uint64(32)).astype(np.int64), -1)


def numbers(column: Column) -> NDArray[np.float64]:
    """Any numeric or boolean column as float64, NaN for null; not to be written to."""
    if isinstance(column, (np.ndarray, Indicator)):
        return np.asarray(column, dtype=np.float64)
    if column.dtype.kind == "f":
        return np.asarray(column.to_numpy(), dtype=np.float64)
    return column.to_numpy("float64", na_value=np.nan)


def missing(column: Column) -> NDArray[np.bool_]:
    """Whether each value is null."""
    if isinstance(column, (np.ndarray, Indicator)):
        return np.isnan(numbers(column))
    return column.isna().to_numpy(bool)


def arrow(column: Column) -> pa.Array:
    """A column as one Arrow array; both zeros are 0.0, so that they are one level with one name."""
    import pyarrow as pa

    if isinstance(column, (np.ndarray, Indicator)) or column.dtype.kind == "f":
        return pa.array(numbers(column) + 0.0, from_pandas=True)
    array = pa.array(column, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def is_text(array: pa.Array) -> bool:
    import pyarrow as pa

    return pa.types.is_string(array.type) or pa.types.is_large_string(array.type)


def texts(array: pa.Array) -> Texts:
    """The bytes of an Arrow array of text."""
    import pyarrow as pa

    from treadle.kernels.texts import Texts

    _, offsets, data = array.buffers()
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    starts = np.frombuffer(offsets or b"\0" * 8, dtype=width)[array.offset : array.offset + len(array) + 1]
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else np.empty(0, dtype=bool)
    return Texts(starts.astype(np.int64), np.frombuffer(data or b"", dtype=np.uint8), valid)


def to_matrix(
    columns: Mapping[str, Column], names: Sequence[str], rows: int, order: Literal["C", "F"] = "C"
) -> NDArray[np.float32]:
    """float32, rows by features; null is NaN. With the order F each column lies in one piece.

    Raises
    ------
    DataError
        A value is infinite as float32, which no model takes.
    """
    from treadle.kernels.matrix import Numbers, Ones, fill

    pieces: list[Numbers | Ones] = []
    for at, name in enumerate(names):
        column = columns[name]
        if not isinstance(column, Indicator):
            values = column if isinstance(column, np.ndarray) else numbers(column)
            pieces.append(Numbers(at, values if values.dtype in FLOATS else values.astype(np.float64)))
            continue
        last = pieces[-1] if pieces else None
        if isinstance(last, Ones) and last.codes is column.codes and last.first + last.width == column.code:
            pieces[-1] = Ones(last.at, last.width + 1, last.codes, last.first)
        else:
            pieces.append(Ones(at, 1, column.codes, column.code))
    matrix = np.empty((rows, len(names)), dtype=np.float32, order=order)
    if not fill(pieces, matrix):
        _refuse_infinite(matrix, names)
    return matrix


def _refuse_infinite(matrix: NDArray[np.float32], names: Sequence[str]) -> None:
    beyond = np.isinf(matrix).sum(axis=0)
    at = int(np.flatnonzero(beyond)[0])
    raise DataError(
        f"Feature '{names[at]}' is infinite or beyond {FLOAT32_MAX:.1e} in {int(beyond[at])} rows, "
        "which no model takes; filter or cap the values in tables, or make them null."
    )
