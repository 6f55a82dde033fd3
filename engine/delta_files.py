"""Parquet files on their way into a Delta table: types, placing, the check before the commit, statistics.

deltalake commits whatever it is told. A file that is truncated, missing or of another type would break
the table only when somebody reads it, so each file is opened here, at its final place, before the commit.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from treadle.engine.document import Part
from treadle.engine.partitioning import Values
from treadle.engine.store import Store, columns_digest
from treadle.errors import DataError, StorageError, listed

INDEXED_COLUMNS = 32
"""Statistics are kept of this many leading columns (Delta's own default), so that the log stays small."""
LONGEST_BOUND = 64
"""Longer texts are left out of the statistics: a bound that is cut off would have to be rounded."""
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_BLOCK = 1 << 20
GONE = "it is not there any more"
_REMEDY = "Run again with --fresh, so that the file is made anew."


@dataclass(frozen=True)
class DataFile:
    """A Parquet file to publish: where it lies now (as the file system understands it) and what is in it."""

    path: str
    rows: int
    bytes: int
    values: Values = ()
    """Of the partition columns, which the file does not have."""
    columns: str = ""
    """As its part has it; empty where nobody knows."""

    @classmethod
    def of(cls, store: Store, part: Part, values: Values = ()) -> DataFile:
        """A file that a stage wrote."""
        return cls(store.path(part.path), part.rows, part.bytes, values, part.columns)


def schema_of(fs: fsspec.AbstractFileSystem, file: DataFile) -> pa.Schema:
    """The schema in the footer of a file.

    Raises:
        StorageError: the file is not there, is not Parquet, or has other columns than were written.
    """
    try:
        with fs.open(file.path, "rb") as opened:
            schema = pq.read_schema(opened)
    except FileNotFoundError as error:
        raise _unfit(file, GONE) from error
    except (OSError, pa.ArrowException) as error:
        raise _unfit(file, f"it is not readable as Parquet ({error})") from error
    _check_columns(file, schema)
    return schema


def _check_columns(file: DataFile, schema: pa.Schema) -> None:
    if file.columns and columns_digest(schema) != file.columns:
        found = listed([f"{field.name}: {field.type}" for field in schema])
        raise _unfit(file, f"its columns, [{found}], are not those that were written")


def without(schema: pa.Schema, partition_by: Sequence[str]) -> pa.Schema:
    """The schema of the files of a table."""
    return pa.schema([field for field in schema if field.name not in partition_by])


def table_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a Delta table for `schema`, which its Parquet files must be written with.

    Text of any layout (large_string, string_view, dictionary) becomes string and floats of 16 bits
    become float32; timestamps become microseconds, in UTC when they have a zone, and unsigned integers
    the next wider signed ones. Writers of large_string or dictionaries of strings need not cast:
    Parquet stores the same bytes. The others must, as `table.cast(table_schema(table.schema))`.

    Raises:
        DataError: a type that a Delta table cannot hold, no columns, or two names that differ in case only.
    """
    if not schema.names:
        raise DataError("A table needs at least one column; the rows to publish have none.")
    seen: dict[str, str] = {}
    for name in schema.names:
        if name.casefold() in seen:
            raise DataError(
                f"Columns '{seen[name.casefold()]}' and '{name}' cannot both be in a table, where the case"
                " of names does not count; rename one of them."
            )
        seen[name.casefold()] = name
    return pa.schema([pa.field(field.name, _table_type(field.name, field.type)) for field in schema])


def _table_type(name: str, kind: pa.DataType) -> pa.DataType:
    kind = _stored_type(kind)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC" if kind.tz else None)
    widened = {
        pa.float16(): pa.float32(),
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
    }
    kind = widened.get(kind, kind)
    signed = pa.types.is_signed_integer(kind)
    if signed or kind in (pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.date32()):
        return kind
    raise DataError(
        f"Column '{name}' has the type {kind}, which a table cannot hold;"
        " cast it to int, float, bool, text, timestamp or date."
    )


def _stored_type(kind: pa.DataType) -> pa.DataType:
    """The type as Parquet stores it: Arrow's layouts of text are one type there."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


@dataclass(frozen=True)
class Placed:
    """A file in its table's folder, ready to be committed; `statistics` is JSON, as add actions hold it."""

    name: str
    bytes: int
    statistics: str
    values: Values = ()


def place(
    fs: fsspec.AbstractFileSystem, file: DataFile, folder: str, schema: pa.Schema, name: str, spare: str
) -> Placed:
    """Links or copies `file` into the folder, where it is checked against its description and the schema.

    Nothing that lies in the folder is ever overwritten, for older versions of the table may hold it:
    a file called `name` is used again when its content is the same; else the new one is called `spare`, which no
    other file is. On an object store it always is: there nobody can look first and then copy.

    Raises:
        StorageError: the file is not there, has another size, is not Parquet, or its footer has
            other columns, types or rows than were promised.
    """
    try:
        if isinstance(fs, LocalFileSystem):
            name = _link(file.path, folder, name, spare)
        else:
            name = spare
            fs.cp_file(file.path, f"{folder}/{name}")
        return Placed(name, file.bytes, _check(fs, f"{folder}/{name}", file, schema))
    except FileNotFoundError as error:
        raise _unfit(file, GONE) from error
    except pa.ArrowException as error:
        raise _unfit(file, f"it is not readable as Parquet ({error})") from error


def _link(source: str, folder: str, name: str, spare: str) -> str:
    """Links or copies a file of this machine into the folder; the name that it has there."""
    try:
        _put(source, f"{folder}/{name}")
    except FileExistsError:
        if not _same_content(source, f"{folder}/{name}"):
            _put(source, f"{folder}/{spare}")
            return spare
    return name


def _put(source: str, target: str) -> None:
    """Links or copies a file; raises FileExistsError when there is one already."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(source, target)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as reading, open(target, "xb") as writing:
        try:
            shutil.copyfileobj(reading, writing, _BLOCK)
            writing.flush()
        except BaseException:
            os.unlink(target)
            raise


def _same_content(one: str, other: str) -> bool:
    if os.path.samefile(one, other):
        return True
    if os.path.getsize(one) != os.path.getsize(other):
        return False
    with open(one, "rb") as left, open(other, "rb") as right:
        while block := left.read(_BLOCK):
            if block != right.read(len(block)):
                return False
    return True


def _check(fs: fsspec.AbstractFileSystem, placed: str, file: DataFile, schema: pa.Schema) -> str:
    """The statistics of the file at `placed`, once it is known to be what `file` says."""
    with fs.open(placed, "rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size != file.bytes:
            raise _unfit(file, f"it has {size} bytes, but {file.bytes} were written")
        opened.seek(0)
        footer = pq.ParquetFile(opened)
    _check_columns(file, footer.schema_arrow)
    if found := _differences(footer.schema_arrow, schema):
        raise _unfit(file, found)
    if footer.metadata.num_rows != file.rows:
        raise _unfit(file, f"it has {footer.metadata.num_rows} rows, but {file.rows} were written")
    # Not in ASCII: the reader behind deltalake takes the surrogate pair of U+20000 for U+10000.
    return json.dumps(_statistics(footer.metadata, schema), ensure_ascii=False)


def _unfit(file: DataFile, reason: str) -> StorageError:
    return StorageError(f"{file.path} cannot be published: {reason}. {_REMEDY}")


def _differences(found: pa.Schema, wanted: pa.Schema) -> str:
    """What is wrong with the columns of a file, or ''."""
    if missing := [name for name in wanted.names if name not in found.names]:
        return f"it lacks columns of the table: [{listed(missing)}]"
    if extra := [name for name in found.names if name not in wanted.names]:
        return f"it has columns that the table has not: [{listed(extra)}]"
    if found.names != wanted.names:
        return f"its columns [{listed(found.names)}] are not in the table's order [{listed(wanted.names)}]"
    wrong = [
        f"'{field.name}' is {field.type} where the table has {wanted.field(index).type}"
        for index, field in enumerate(found)
        if _stored_type(field.type) != wanted.field(index).type
    ]
    return f"column {listed(wrong)}" if wrong else ""


def _statistics(footer: pq.FileMetaData, schema: pa.Schema) -> dict[str, Any]:
    """`numRecords` of the file, and of each leading column the bounds and number of nulls in the footer.

    Bounds leave NaN out, as those of Parquet do. A bound that the footer or JSON cannot tell is absent.
    """
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    lowest: dict[str, Any] = {}
    highest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for index, field in enumerate(list(schema)[:INDEXED_COLUMNS]):
        parts = [group.column(index).statistics for group in groups if group.num_rows]
        if any(part is None or not part.has_null_count for part in parts):
            continue
        nulls[field.name] = sum(part.null_count for part in parts)
        bounds = _bounds([part for part in parts if part.num_values], field.type)
        if bounds is not None:
            lowest[field.name], highest[field.name] = bounds
    return {
        "numRecords": footer.num_rows,
        "minValues": lowest,
        "maxValues": highest,
        "nullCount": nulls,
    }


def _bounds(parts: Sequence[pq.Statistics], kind: pa.DataType) -> tuple[Any, Any] | None:
    if not parts or pa.types.is_boolean(kind) or not all(part.has_min_max for part in parts):
        return None
    try:
        low, high = min(part.min for part in parts), max(part.max for part in parts)
    except (ValueError, OverflowError):
        # Python has no such date (year 10000), or another writer cut a text in the middle of a character.
        return None
    bounds = _json_value(low), _json_value(high)
    return None if None in bounds else bounds


def _json_value(value: Any) -> int | float | str | None:
    """A bound as Delta writes it in JSON, or None where JSON has no such value."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= LONGEST_BOUND else None
    if isinstance(value, dt.datetime):
        naive = value.replace(tzinfo=None)
        if value.tzinfo is None:
            return naive.isoformat(sep=" ", timespec="microseconds")
        return naive.isoformat(timespec="microseconds") + "Z"
    if isinstance(value, dt.date):
        return value.isoformat()
    return int(value)
