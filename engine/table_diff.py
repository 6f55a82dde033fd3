"""Two tables compared: their columns, rows that only one has by key, and what changed in the others.

Neither the order of rows nor the files matter, and tables need not fit the memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from treadle.engine.delta import read_batches
from treadle.engine.delta_log import contents
from treadle.engine.diff_buckets import buckets
from treadle.engine.diff_rows import ColumnDiff, Comparer
from treadle.errors import column_not_found

if TYPE_CHECKING:
    from deltalake import DeltaTable

MEMORY = 128 * 2**20
"""Bytes of the rows of both tables that are compared at once."""
BATCH_BYTES = 8 * 2**20
MOST_BATCH_ROWS = 131_072
NATURAL_KEYS = {
    "leaderboard": ("model",),
    "folds": ("model", "fold"),
    "race": ("model", "heat"),
    "trials": ("model", "number"),
    "quarantine": ("file", "line"),
    "explanations": ("id", "class"),
}
"""What tells the rows of a table apart where it is not `id` alone."""


@dataclass(frozen=True)
class SchemaDiff:
    """What became of the columns, by name, with their Arrow types."""

    added: dict[str, str] = field(default_factory=dict)
    removed: dict[str, str] = field(default_factory=dict)
    retyped: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retyped)

    @property
    def words(self) -> str:
        """added, removed, retyped, or several of them; '' where the columns are the same."""
        kinds = {"added": self.added, "removed": self.removed, "retyped": self.retyped}
        return ", ".join(word for word, columns in kinds.items() if columns)


@dataclass(frozen=True)
class TableDiff:
    """What it takes from the left table to the right one."""

    left_rows: int
    right_rows: int
    schema: SchemaDiff
    key: tuple[str, ...]
    """By which rows were paired; empty where whole rows were, or none."""
    only_left: int | None
    """Rows without a partner; None where rows could not be paired."""
    only_right: int | None
    changed: int | None
    """Pairs of rows with another value in any column that was compared."""
    columns: tuple[ColumnDiff, ...]
    """Columns with another value anywhere."""
    only_left_examples: tuple[dict[str, Any], ...] = ()
    """The least keys, or rows."""
    only_right_examples: tuple[dict[str, Any], ...] = ()
    not_compared: tuple[str, ...] = ()
    """Columns of both whose values were not compared: their types have nothing in common, or so it was asked for."""
    said: str = ""
    """Why rows could not be paired."""

    @property
    def same(self) -> bool:
        """Whether there is no difference: the same columns and, in any order, the same rows."""
        found = self.only_left, self.only_right, self.changed
        return not self.schema and self.left_rows == self.right_rows and not any(found) and not self.said

    def described(self) -> dict[str, Any]:
        """For --json; numbers that JSON does not have are text."""
        found: dict[str, Any] = in_json({"same": self.same, **asdict(self)})
        return found


def compare(
    left: pa.Table | DeltaTable,
    right: pa.Table | DeltaTable,
    key: Sequence[str] | None = None,
    *,
    tolerance: float = 0.0,
    ignore: Collection[str] = (),
    examples: int = 5,
    memory: int = MEMORY,
) -> TableDiff:
    """Compares two tables, or two versions of one.

    A key may stand more than once: rows are then paired with equal ones first, and what is left in the order of
    values. NaN equals NaN, null equals null, -0.0 equals 0.0. Where one table has whole numbers and the other floats,
    both are compared as float64.

    Parameters
    ----------
    key
        Columns by which rows are paired; None: whole rows are looked for in the other table.
    tolerance
        Numbers are the same when they differ by no more than this part of the larger one, or of 1 where both are
        smaller. It does not hold for the columns of the key.
    ignore
        Columns whose values are not compared.
    examples
        How many are kept of each kind.
    memory
        Bytes of rows above which they go through files of this machine, in buckets of about half of it.

    Raises
    ------
    RequestError
        A column of the key is in neither or only one of the tables.
    StorageError
        A file of a table is gone, or there is no space for the buckets.
    """
    sides = tuple(_columns_of(table) for table in (left, right))
    for name in key or ():
        for side, where in zip(sides, ("the left table", "the right table"), strict=True):
            if name not in side:
                raise column_not_found(name, where, side)
    schema = schema_diff(*sides)
    types = {name: _common(sides[0][name], sides[1][name]) for name in sides[0] if name in sides[1]}
    every = tuple(name for name, type_ in types.items() if type_ is not None and name not in ignore)
    paired_by = every if key is None else tuple(key)
    apart = [name for name in paired_by if types[name] is None]
    left_rows, right_rows = _rows(left), _rows(right)
    if apart or not paired_by:
        said = "the tables have no column in common that could be compared"
        if apart:
            types_said = " in the one and ".join(str(side[apart[0]]) for side in sides)
            said = f"'{apart[0]}' is {types_said} in the other"
        return TableDiff(left_rows, right_rows, schema, (), None, None, None, (), not_compared=tuple(types), said=said)
    compared = pa.schema(
        [
            (name, type_)
            for name, type_ in types.items()
            if type_ is not None and (name in paired_by or name not in ignore)
        ]
    )
    comparer = Comparer(compared, paired_by, tolerance, examples)
    batches = _batches(left, compared), _batches(right, compared)
    for some in buckets(batches, compared, paired_by, left_rows + right_rows, memory):
        comparer.add(*some)
    return TableDiff(
        left_rows=comparer.rows[0],
        right_rows=comparer.rows[1],
        schema=schema,
        key=() if key is None else tuple(key),
        only_left=comparer.only[0],
        only_right=comparer.only[1],
        changed=comparer.changed,
        columns=comparer.columns(),
        only_left_examples=comparer.without_partner(0),
        only_right_examples=comparer.without_partner(1),
        not_compared=tuple(name for name in types if name not in compared.names),
    )


def natural_key(name: str, left: pa.Table | DeltaTable, right: pa.Table | DeltaTable) -> tuple[str, ...] | None:
    """What tells the rows of two versions of a published table apart; None where nothing does."""
    sides = [_columns_of(table) for table in (left, right)]

    def names_rows(column: str) -> bool:
        # A feature may be called `class` as well; what explanations hold of it are contributions.
        return all(column in side and not pa.types.is_floating(side[column]) for side in sides)

    usual = NATURAL_KEYS.get(name, ("id",))
    for key in (usual, usual[:1], ("id",)):
        if all(map(names_rows, key)) or (key == ("id",) and all("id" in side for side in sides)):
            return key
    return None


def schema_diff(left: Mapping[str, object], right: Mapping[str, object]) -> SchemaDiff:
    """What became of columns, from name -> type."""
    return SchemaDiff(
        added={name: str(type_) for name, type_ in right.items() if name not in left},
        removed={name: str(type_) for name, type_ in left.items() if name not in right},
        retyped={
            name: (str(type_), str(right[name]))
            for name, type_ in left.items()
            if name in right and type_ != right[name]
        },
    )


def _columns_of(table: pa.Table | DeltaTable) -> dict[str, pa.DataType]:
    schema = table.schema if isinstance(table, pa.Table) else next(iter(read_batches(table))).schema
    return {field.name: _text_as_string(field.type) for field in schema}


def _text_as_string(type_: pa.DataType) -> pa.DataType:
    """Layouts of text are one type."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return pa.string() if pa.types.is_large_string(type_) or pa.types.is_string_view(type_) else type_


def _common(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """The type in which values of both are compared; None where there is none, and of nested values and bytes."""
    if pa.types.is_null(left) or pa.types.is_null(right):
        left = right = right if pa.types.is_null(left) else left
    if pa.types.is_nested(left) or pa.types.is_binary(left) or pa.types.is_large_binary(left):
        return None
    if left == right:
        return pa.string() if pa.types.is_null(left) else left
    if pa.types.is_integer(left) and pa.types.is_integer(right):
        return pa.int64()
    numbers = [pa.types.is_integer(type_) or pa.types.is_floating(type_) for type_ in (left, right)]
    return pa.float64() if all(numbers) else None


def _rows(table: pa.Table | DeltaTable) -> int:
    return int(table.num_rows) if isinstance(table, pa.Table) else contents(table).rows


def _batches(table: pa.Table | DeltaTable, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The columns of `schema`, in its types."""
    width = sum(math.ceil(type_.bit_width / 8) if pa.types.is_primitive(type_) else 16 for type_ in schema.types)
    rows = max(min(BATCH_BYTES // width, MOST_BATCH_ROWS), 1024)
    if isinstance(table, pa.Table):
        found: Iterable[pa.RecordBatch] = table.select(schema.names).to_batches(rows)
    else:
        found = read_batches(table, schema.names, rows)
    for batch in found:
        yield batch if batch.schema == schema else batch.cast(schema, safe=False)


def in_json(value: Any) -> Any:
    """The value with what JSON does not have, NaN and infinite numbers, as text."""
    if isinstance(value, dict):
        return {key: in_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [in_json(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
