"""Parquet files as their footers describe them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine.backend import kind_of_arrow
from treadle.engine.digests import identify
from treadle.engine.inputs import InputFile, Inspected, filesystem
from treadle.engine.readers.hive import typed_values
from treadle.engine.readers.options import given_kinds
from treadle.engine.readers.schemas import NULL, Rules, unify
from treadle.errors import DataError

RULES = Rules()
THREADS = 8
BECOMES: Mapping[str, tuple[str, ...]] = {
    "int": ("float", "text"),
    "float": ("int", "text"),
    "bool": ("text",),
    "text": ("int", "float", "bool", "timestamp"),
}
"""What a given type may make of a kind that the file has; a value without a counterpart is an error on reading."""
_READERS: Mapping[type, Callable[[str], object]] = {int: int, str: str, dt.date: dt.date.fromisoformat}
"""By the type of a footer's statistics: how the name of a folder is compared with it."""


@dataclass(frozen=True)
class Footer:
    """What one file's footer tells: `kinds` holds descriptions where the engine has no kind for a type."""

    file: InputFile
    kinds: dict[str, str]
    folders: dict[str, str | None] = field(default_factory=dict)
    """Columns that the file's folders stand for and that are not in the file."""


def inspect(folders: Mapping[str, Mapping[str, str | None]], types: Mapping[str, str]) -> Inspected:
    """Footers of Parquet files (path -> columns that its folders stand for), whose schemas agree.

    Raises
    ------
    DataError
        A corrupt file, a column whose values differ from its folder's name, or files whose columns differ.
    RequestError
        A given type for a column that is not there.
    """
    footers = read_footers(folders)
    folder_kinds, written = typed_values({footer.file.path: footer.folders for footer in footers}, types)
    columns = {}
    for footer in footers:
        values = written[footer.file.path]
        of_folders = {name: folder_kinds[name] if value is not None else NULL for name, value in values.items()}
        columns[footer.file.path] = {
            name: {kind: f"'{footer.file.path}'"} for name, kind in {**footer.kinds, **of_folders}.items()
        }
    unified = unify(columns, types, RULES)
    for footer in footers:
        check_given(footer, types)
    files = [replace(f.file, constants=tuple(written[f.file.path].items())) for f in footers]
    return Inspected("parquet", tuple(files), unified.kinds, left_out=unified.left_out, notes=unified.notes)


def read_footers(folders: Mapping[str, Mapping[str, str | None]]) -> list[Footer]:
    """The footers of files, in the order given."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda item: _footer(*item), folders.items()))


def check_given(footer: Footer, types: Mapping[str, str]) -> None:
    """Refuses a given type that no value of a file's column can become."""
    for name, kind in given_kinds(types).items():
        own = footer.kinds.get(name, NULL)
        if own not in (kind, NULL) and kind not in BECOMES.get(own, ()):
            raise DataError(
                f"Column '{name}' of '{footer.file.path}' is {own}, which cannot be read as {types[name]} "
                "(data.types); use cast or derive in tables."
            )


def column_kinds(schema: pa.Schema) -> dict[str, str]:
    """The kinds of a schema's columns; the type itself where the engine takes none of it."""
    return {
        column.name: NULL if pa.types.is_null(column.type) else kind_of_arrow(column.type) or str(column.type)
        for column in schema
    }


def _footer(path: str, folders: Mapping[str, str | None]) -> Footer:
    fs, bare = filesystem(path)
    try:
        with fs.open(bare, "rb") as file:
            metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"'{path}' is no readable Parquet file: {reason}. Replace it or leave it out.") from error
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise DataError(f"'{path}' has two columns called '{twice[0]}'; rename one of them in the file.")
    for name in folders:
        if name in schema.names and not _holds(metadata, name, folders[name]):
            raise DataError(
                f"'{path}' has a column '{name}' whose values are not, or not known to be, those that its folder "
                f"'{name}=...' stands for; rename the folder or the column."
            )
    groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    found = identify(fs, bare)
    described = InputFile(
        path, found.bytes, found.digest, metadata.num_rows, groups, whole=found.whole, stamp=found.stamp
    )
    others = {name: value for name, value in folders.items() if name not in schema.names}
    return Footer(described, column_kinds(schema), others)


def _holds(metadata: pq.FileMetaData, name: str, text: str | None) -> bool:
    """Whether the statistics of a file say that a column has the value that `text` stands for in every row."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns: Sequence[pq.ColumnChunkMetaData] = [group.column(i) for i in range(group.num_columns)]
        statistics = next((c.statistics for c in columns if c.path_in_schema == name), None)
        if statistics is None or not statistics.has_null_count:
            return False
        if text is None:
            if statistics.null_count < group.num_rows:
                return False
            continue
        reader = _READERS.get(type(statistics.min)) if statistics.has_min_max else None
        try:
            if statistics.null_count or reader is None or not statistics.min == statistics.max == reader(text):
                return False
        except ValueError:
            return False
    return True
