"""The relational part of a job as one picklable function of a partition.

Operations are compiled, not chained: a partition is read once, with the columns that are needed
only, and all operations run on it in one task.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine.artifacts import Piece, StepRecord
from treadle.engine.backend import ARROW_TYPES, Backend, converted, kinds_of
from treadle.engine.inputs import filesystem
from treadle.engine.left_out import row_numbers, without_left_out
from treadle.engine.operation import OWN_COLUMNS, ROW_ID, ROW_ORDER, Operation
from treadle.engine.preparing import apply_steps
from treadle.engine.pruning import narrowed
from treadle.engine.readers.parts import constant
from treadle.engine.relational import Aggregate, Dedupe, Drop, Filter, Join, Rename, Select, Union
from treadle.engine.store import Store
from treadle.errors import DataError, StorageError, TreadleError, column_not_found

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
    kinds: tuple[tuple[str, str], ...] = ()
    """The columns after a union."""

    @classmethod
    def of(cls, record: StepRecord, folder: str = "") -> Step:
        """The step of a record, whose small table lies in a folder (with a slash at its end)."""
        return cls(
            record.index,
            record.operation,
            None if record.side is None else f"{folder}{record.side}",
            tuple(record.side_kinds.items()),
            record.multiplies,
            tuple(record.kinds.items()),
        )

    def record(self) -> StepRecord:
        """The step as it is kept."""
        return StepRecord(
            index=self.index,
            operation=self.operation,  # type: ignore[arg-type]
            side=self.side,
            side_kinds=dict(self.side_kinds),
            multiplies=self.multiplies,
            kinds=dict(self.kinds),
        )

    @property
    def where(self) -> str:
        return f"tables.{self.index} ({getattr(self.operation, 'op', '')})"

    @property
    def is_local(self) -> bool:
        """An aggregate of rows that all lie in the partition: it takes no group table."""
        return isinstance(self.operation, Aggregate) and self.side is None and not self.side_kinds

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it needs, whatever is wanted of its output."""
        return (*self.operation.reads, *(self.operation.gathers if self.is_local else ()))  # type: ignore[attr-defined]

    def applied(self, frame: pd.DataFrame, side: pd.DataFrame | None) -> pd.DataFrame:
        """The operation on rows, on the host; its columns are checked, and its errors say where it stands."""
        self.check(frame)
        try:
            return self.operation.apply(frame, side)
        except TreadleError as error:
            raise type(error)(f"{self.where}: {error}") from error

    def check(self, frame: pd.DataFrame) -> None:
        """Refuses rows without a column that it reads."""
        for name in self.reads:
            if name not in frame.columns:
                raise column_not_found(name, f"the input of {self.where}", _visible(frame))

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

    def __getstate__(self) -> dict[str, Any]:
        """The fields, without what was found of them here."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def rows(self, partition: Sequence[Piece]) -> pd.DataFrame:
        """Reads the pieces and applies the steps. The column `__id__` names every row.

        Pieces for a step are the rows of its other table that belong to this partition; a partition that has no
        others holds rows that come in at that step (a union).
        """
        own = [piece for piece in partition if piece.step is None]
        steps = {step.index: step for step in self.steps}
        if not own:
            index = partition[0].step
            later = tuple(step for step in self.steps if index is not None and step.index >= index)
            return replace(self, steps=later).apply(self._entering(steps[index], partition))  # type: ignore[index]
        sides = {
            index: self._frame([piece for piece in partition if piece.step == index], dict(steps[index].side_kinds))
            for index in sorted({piece.step for piece in partition if piece.step is not None} & set(steps))
        }
        wanted = narrowed(self.store, dict(self.kinds), self.id_column, self.steps, own)
        return self.apply(self.read(wanted), sides)

    def read(self, pieces: Sequence[Piece]) -> pd.DataFrame:
        """The rows of the pieces before any step, with `__id__`, exchanged ones in the order that they had before."""
        frame = self._identified(self._frame(pieces, dict(self.kinds)), pieces)
        if ROW_ORDER not in frame.columns or frame[ROW_ORDER].is_monotonic_increasing:
            return frame
        return frame.sort_values(ROW_ORDER, kind="stable", ignore_index=True)

    def _frame(self, pieces: Sequence[Piece], kinds: dict[str, str]) -> pd.DataFrame:
        tables = [without_left_out(self.store, piece, read_piece(self.store, piece, kinds)) for piece in pieces]
        return self.backend.frame(pa.concat_tables(tables))

    def _identified(self, frame: pd.DataFrame, pieces: Sequence[Piece]) -> pd.DataFrame:
        if self.id_column is None and ROW_ID not in frame.columns:
            numbers = [pa.array(row_numbers(self.store, piece)) for piece in pieces]
            frame.insert(0, ROW_ID, self.backend.frame(pa.table({ROW_ID: pa.chunked_array(numbers)}))[ROW_ID])
        return self.with_id(frame)

    def _entering(self, step: Step, pieces: Sequence[Piece]) -> pd.DataFrame:
        """Rows of the other table of a union, under the names that they have here."""
        renamed = step.operation.with_.rename  # type: ignore[attr-defined]
        original = {new: old for old, new in renamed.items()}
        kinds = {original.get(name, name): kind for name, kind in step.side_kinds}
        frame = self._identified(self._frame(pieces, kinds).rename(columns=renamed), pieces)
        if ROW_ORDER not in dict(self.kinds):
            return frame
        # The others were exchanged before, and know their places; these come after them.
        first = [(step.index << 50) + piece.offset for piece in pieces]
        places = [pa.array(range(n, n + p.rows), pa.int64()) for n, p in zip(first, pieces, strict=True)]
        order = self.backend.frame(pa.table({ROW_ORDER: pa.chunked_array(places)}))[ROW_ORDER]
        return frame.assign(**{ROW_ORDER: order})

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

    def apply(self, frame: pd.DataFrame, sides: Mapping[int, pd.DataFrame] | None = None) -> pd.DataFrame:
        """The steps on rows in memory, with the other tables of some steps; columns are checked before each."""
        given = ((step, self._side(step, sides or {})) for step in self.steps)
        return apply_steps(self.backend, given, frame)

    def _side(self, step: Step, sides: Mapping[int, pd.DataFrame]) -> pd.DataFrame | None:
        """The table that a step takes beside the rows."""
        if step.index in sides:
            return sides[step.index]
        if step.side is not None:
            return load_side(self.store, step.side, self.store.stamp(step.side))
        kinds = step.kinds if isinstance(step.operation, Union) else step.side_kinds
        return self.backend.empty(dict(kinds)) if kinds or isinstance(step.operation, Union) else None

    def empty(self) -> pd.DataFrame:
        """The outcome for no rows: names and dtypes of the columns; not to be written to."""
        return self._empty

    @functools.cached_property
    def _empty(self) -> pd.DataFrame:
        frame = self.backend.empty(dict(self.kinds))
        if ROW_ID not in frame.columns:
            frame.insert(0, ROW_ID, frame[self.id_column] if self.id_column else self.backend.empty({"n": "int"})["n"])
        bare = tuple(replace(step, side=None) for step in self.steps)
        # On the host: the driver asks, too, which has no device.
        return replace(self, steps=bare, backend=Backend()).apply(frame)

    def output(self) -> dict[str, str]:
        """The columns after the last step, with their kinds, `__id__` left out."""
        kinds = kinds_of(self.empty())
        return {name: kind for name, kind in kinds.items() if name not in OWN_COLUMNS}

    def resolved(self, operation: Operation) -> Operation:
        """An operation after the last step, with the columns that it leaves open: all there are but the id."""
        if operation.resolved(()) == operation:
            return operation
        return operation.resolved([name for name in self.output() if name != self.id_column])

    def pruned(self, wanted: Sequence[str]) -> Program:
        """The same outcome for the `wanted` columns, without the steps and inputs that only others need.

        A filter, an inner join or one that multiplies rows decides which rows there are, and stays. Steps
        that take names away become a selection of what is needed, so that the names are as free as before.
        """
        needed = frozenset(wanted).union(OWN_COLUMNS)
        steps: list[Step] = []
        for step in reversed(self.steps):
            operation = step.operation
            makes = operation.makes(step.side_columns)
            decides_rows = step.multiplies or (isinstance(operation, Join) and operation.decides_rows)
            if decides_rows or not makes or makes & needed:
                narrowed = operation.only(needed)
                needed = narrowed.needs(needed, step.side_columns)
                needed |= set(step.reads) if step.is_local else frozenset()
                steps.append(_narrowed(replace(step, operation=narrowed), needed | {self.id_column or ROW_ID}))
            if isinstance(operation, (Select, Drop)):
                steps.pop()
            if isinstance(operation, (Select, Drop, Rename)):
                kept = Select(op="select", columns=tuple(sorted(needed.difference(OWN_COLUMNS))))
                if not steps or steps[-1].operation != kept:
                    steps.append(Step(step.index, kept))
        kinds = tuple((name, kind) for name, kind in self.kinds if name in needed or name == self.id_column)
        return replace(self, kinds=kinds, steps=tuple(reversed(steps)))

    def without_columns(self, absent: Sequence[str]) -> tuple[Program, list[Step]]:
        """For rows that lack the `absent` columns, read or made: without what leaves out rows by them, and that."""
        missing = set(absent)
        kept, left_out = [], []
        for step in self.steps:
            if isinstance(step.operation, (Filter, Dedupe)) and missing & set(step.operation.reads):
                left_out.append(step)
                continue
            made = step.operation.makes(step.side_columns)
            lacking = {name for name in made if missing & set(step.operation.only(frozenset({name})).reads)}
            missing = (missing - made) | lacking | (made & set(absent))
            kept.append(step)
        kinds = tuple((name, kind) for name, kind in self.kinds if name not in absent)
        return replace(self, kinds=kinds, steps=tuple(kept)), left_out


def _narrowed(step: Step, needed: frozenset[str]) -> Step:
    """A union without the columns that nobody needs."""
    if not isinstance(step.operation, Union):
        return step
    kinds = tuple((name, kind) for name, kind in step.kinds if name in needed)
    return replace(step, kinds=kinds, side_kinds=tuple((n, k) for n, k in step.side_kinds if n in needed))


def read_piece(store: Store, piece: Piece, kinds: dict[str, str]) -> pa.Table:
    """The rows of a piece with the columns `kinds`, in the engine's Arrow types."""
    path = store.path(piece.path) if piece.own else piece.path
    if piece.batch is not None:
        return _exchanged(store, path, piece.batch, kinds)
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


def _exchanged(store: Store, path: str, batch: int, kinds: dict[str, str]) -> pa.Table:
    """Exchanged rows are uncompressed Arrow: of a local file only what is used is ever read."""
    local = "file" in store.fs.protocol
    try:
        with pa.memory_map(path) if local else store.fs.open(path, "rb") as file, pa.ipc.open_file(file) as reader:
            return pa.Table.from_batches([reader.get_batch(batch)]).select(list(kinds))
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{path} cannot be read: {error}. Run again with --fresh.") from error


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
def load_side(store: Store, path: str, stamp: str) -> pd.DataFrame:
    """A small table, loaded once a process while its file stays the same; operations do not change it."""
    return Backend().frame(store.read_parquet(path))


def _visible(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if name not in OWN_COLUMNS]
