"""The relational part of a job as one picklable function of a partition.

Operations are compiled, not chained: a partition is read once, with the columns that are needed
only, and all operations run on it in one task.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine.artifacts import Piece
from treadle.engine.backend import ARROW_TYPES, Backend, converted, kinds_of
from treadle.engine.inputs import filesystem
from treadle.engine.operation import ROW_ID, Operation
from treadle.engine.readers.parts import constant
from treadle.engine.relational import Drop, Join, Rename, Select
from treadle.engine.store import Store
from treadle.errors import DataError, TreadleError, column_not_found

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Step:
    """An operation at its place in the spec, with the small table it takes beside the rows."""

    index: int
    operation: Operation
    side: str | None = None
    """Path of a Parquet file, relative to the root."""
    side_kinds: tuple[tuple[str, str], ...] = ()
    multiplies: bool = False
    """A join whose side has keys that occur more than once: leaving it out would change how many rows there are."""

    @property
    def where(self) -> str:
        return f"tables.{self.index} ({getattr(self.operation, 'op', '')})"

    @property
    def side_columns(self) -> list[str]:
        return [name for name, _ in self.side_kinds]


@dataclass(frozen=True)
class Program:
    """From a partition of the input to its prepared rows."""

    store: Store
    backend: Backend
    kinds: tuple[tuple[str, str], ...]
    """Columns of the input that are read, with their kinds."""
    id_column: str | None
    steps: tuple[Step, ...]

    def rows(self, partition: Sequence[Piece]) -> pd.DataFrame:
        """Reads the pieces and applies the steps. The column `__id__` names every row."""
        kinds = dict(self.kinds)
        tables = [read_piece(self.store, piece, kinds) for piece in partition]
        frame = self.backend.frame(pa.concat_tables(tables))
        if self.id_column is None:
            numbers = [pa.array(range(p.offset, p.offset + p.rows), pa.int64()) for p in partition]
            frame.insert(0, ROW_ID, self.backend.frame(pa.table({ROW_ID: pa.chunked_array(numbers)}))[ROW_ID])
        return self.apply(self.with_id(frame))

    def with_id(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with the column `__id__`, copied from the id column when there is one."""
        if ROW_ID in frame.columns or self.id_column is None:
            return frame
        ids = frame[self.id_column]
        if ids.isna().any():
            raise DataError(
                f"The id column '{self.id_column}' is null in {int(ids.isna().sum())} rows; "
                "fill it, or leave data.id out."
            )
        frame.insert(0, ROW_ID, ids)
        return frame

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The steps on rows in memory; columns are checked before each."""
        for step in self.steps:
            for name in step.operation.reads:
                if name not in frame.columns:
                    raise column_not_found(name, f"the input of {step.where}", _visible(frame))
            side = None
            if step.side is not None:
                side = load_side(self.store, self.backend, step.side, self.store.stamp(step.side))
            elif step.side_kinds:
                side = self.backend.empty(dict(step.side_kinds))
            try:
                frame = step.operation.apply(frame, side)
            except TreadleError as error:
                raise type(error)(f"{step.where}: {error}") from error
        return frame

    def empty(self) -> pd.DataFrame:
        """The outcome for no rows: names and dtypes of the columns."""
        frame = self.backend.empty(dict(self.kinds))
        if ROW_ID not in frame.columns:
            frame.insert(0, ROW_ID, frame[self.id_column] if self.id_column else self.backend.empty({"n": "int"})["n"])
        bare = tuple(replace(step, side=None) for step in self.steps)
        return replace(self, steps=bare).apply(frame)

    def output(self) -> dict[str, str]:
        """The columns after the last step, with their kinds, `__id__` left out."""
        kinds = kinds_of(self.empty())
        return {name: kind for name, kind in kinds.items() if name != ROW_ID}

    def pruned(self, wanted: Sequence[str]) -> Program:
        """The same outcome for the `wanted` columns, without the steps and inputs that only others need.

        A filter, an inner join or one that multiplies rows decides which rows there are, and stays. Steps
        that take names away become a selection of what is needed, so that the names are as free as before.
        """
        needed = frozenset(wanted) | {ROW_ID}
        steps: list[Step] = []
        for step in reversed(self.steps):
            operation = step.operation
            makes = operation.makes(step.side_columns)
            decides_rows = step.multiplies or (isinstance(operation, Join) and operation.how == "inner")
            if decides_rows or not makes or makes & needed:
                narrowed = operation.only(needed)
                needed = narrowed.needs(needed, step.side_columns)
                steps.append(replace(step, operation=narrowed))
            if isinstance(operation, (Select, Drop)):
                steps.pop()
            if isinstance(operation, (Select, Drop, Rename)):
                kept = Select(op="select", columns=tuple(sorted(needed - {ROW_ID})))
                if not steps or steps[-1].operation != kept:
                    steps.append(Step(step.index, kept))
        kinds = tuple((name, kind) for name, kind in self.kinds if name in needed or name == self.id_column)
        return replace(self, kinds=kinds, steps=tuple(reversed(steps)))

    def without_columns(self, absent: Sequence[str]) -> tuple[Program, list[Step]]:
        """For rows that lack the `absent` columns, read or made: without the filters that need them, and these."""
        missing = set(absent)
        kept, left_out = [], []
        for step in self.steps:
            if step.operation.op == "filter" and missing & set(step.operation.reads):  # type: ignore[attr-defined]
                left_out.append(step)
                continue
            made = step.operation.makes(step.side_columns)
            lacking = {name for name in made if missing & set(step.operation.only(frozenset({name})).reads)}
            missing = (missing - made) | lacking | (made & set(absent))
            kept.append(step)
        kinds = tuple((name, kind) for name, kind in self.kinds if name not in absent)
        return replace(self, kinds=kinds, steps=tuple(kept)), left_out


def read_piece(store: Store, piece: Piece, kinds: dict[str, str]) -> pa.Table:
    """The rows of a piece with the columns `kinds`, in the engine's Arrow types."""
    path = store.path(piece.path) if piece.own else piece.path
    fs, bare = filesystem(path) if not piece.own else (store.fs, path)
    local = "file" in fs.protocol
    try:
        with pq.ParquetFile(bare if local else fs.open(bare, "rb"), memory_map=local) as file:
            table, start = _row_groups(file, piece, [name for name in kinds if name not in piece.constants])
    except (pa.ArrowException, OSError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"'{path}' cannot be read: {reason}. Replace it or leave it out.") from error
    table = table.slice(piece.start - start, piece.rows)
    columns = {}
    for name, kind in kinds.items():
        if name in piece.constants:
            columns[name] = constant(piece.constants[name], kind, piece.rows)
            continue
        column = table.column(name)
        try:
            columns[name] = converted(column, kind)
        except pa.ArrowException as error:
            raise DataError(
                f"Column '{name}' of '{path}' ({column.type}) cannot become {ARROW_TYPES[kind]}: {error}"
            ) from error
    return pa.table(columns)


def _row_groups(file: pq.ParquetFile, piece: Piece, columns: list[str]) -> tuple[pa.Table, int]:
    """The row groups that overlap a piece, and the number of the first row in them."""
    wanted, first, row = [], None, 0
    for i in range(file.metadata.num_row_groups):
        n = file.metadata.row_group(i).num_rows
        if row < piece.stop and row + n > piece.start:
            first = row if first is None else first
            wanted.append(i)
        row += n
    return file.read_row_groups(wanted, columns=columns), first or 0


@functools.lru_cache(maxsize=16)
def load_side(store: Store, backend: Backend, path: str, stamp: str) -> pd.DataFrame:
    """A small table, loaded once a process while its file stays the same; operations do not change it."""
    return backend.frame(store.read_parquet(path))


def _visible(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if name != ROW_ID]
