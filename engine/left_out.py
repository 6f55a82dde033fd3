"""Rows that are left out, as a contract sets them aside or because they repeat others.

Their numbers lie in a file a partition, by which every reader leaves them out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Piece
from treadle.engine.document import Part
from treadle.engine.store import Store


def write_left_out(store: Store, relative: str, numbers: np.ndarray) -> Part:
    """The numbers of rows that are left out, (rows,) int64 ascending."""
    return store.write_parquet(relative, pa.table({"row": pa.array(numbers, pa.int64())}))


def left_out_of(store: Store, pieces: Sequence[Piece]) -> np.ndarray:
    """The numbers of the rows of a partition that are left out, (rows,) int64 ascending."""
    paths = {piece.left_out for piece in pieces if piece.left_out is not None}
    numbers = [_numbers(store, path, store.stamp(path)) for path in paths]
    return np.sort(np.concatenate(numbers)) if numbers else np.zeros(0, dtype=np.int64)


def row_numbers(store: Store, piece: Piece) -> np.ndarray:
    """The numbers of the rows of a piece that are there, (rows,) int64."""
    return piece.offset + _there(store, piece)


def without_left_out(store: Store, piece: Piece, table: pa.Table) -> pa.Table:
    """Of all rows of a piece those that are there."""
    return table if piece.left_out is None else table.take(pa.array(_there(store, piece)))


def _there(store: Store, piece: Piece) -> np.ndarray:
    every = np.arange(piece.rows, dtype=np.int64)
    if piece.left_out is None:
        return every
    numbers = _numbers(store, piece.left_out, store.stamp(piece.left_out)) - piece.offset
    return np.delete(every, numbers[(numbers >= 0) & (numbers < piece.rows)])


@functools.lru_cache(maxsize=4)
def _numbers(store: Store, path: str, stamp: str) -> np.ndarray:
    """Read once for all pieces of a partition."""
    return store.read_parquet(path).column("row").to_numpy()
