"""Delta tables: where one is, its versions, and their rows. `treadle.engine.commits` makes versions."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import fsspec
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from fsspec.implementations.local import LocalFileSystem
from pyarrow import dataset
from pyarrow import fs as filesystem

from treadle.engine.artifacts import TableRecord
from treadle.engine.delta_log import contents, entry
from treadle.engine.object_store import delta_options
from treadle.engine.store import storage_errors
from treadle.errors import RequestError, StorageError, column_not_found, did_you_mean, listed

FINGERPRINT = "treadle.fingerprint"
"""Key in a commit's custom metadata: what the version was made from."""
RUN = "treadle.run"
"""Key in a commit's custom metadata: the run that made the version."""
RESTORED = "treadle.restored"
"""Key in a commit's custom metadata: the version whose content it brought back."""


@dataclass(frozen=True)
class TableVersion:
    """A version of a table that is there to be read; `uri` is an absolute path or a URL."""

    name: str
    uri: str
    version: int
    rows: int
    bytes: int
    files: int

    def record(self, job: str) -> TableRecord:
        """As manifests name it."""
        return TableRecord(
            name=self.name,
            path=f"tables/{job}/{self.name}",
            version=self.version,
            rows=self.rows,
            bytes=self.bytes,
            files=self.files,
        )


def open_table(
    fs: fsspec.AbstractFileSystem,
    table_path: str,
    version: int | None = None,
) -> DeltaTable:
    """The current version of a table, or an older one.

    Raises:
        RequestError: there is no such table or version; the message names those that there are.
    """
    table = locate(fs, table_path)
    with explained(table.uri):
        head = table.head()
        if head is None:
            raise _no_table(table)
        if version is None:
            return head
        if not 0 <= version <= head.version():
            raise RequestError(
                f"Table '{table.name}' has no version {version}; its versions are 0 to {head.version()}."
            )
        return table.open(version)


def data_files(table: DeltaTable) -> list[str]:
    """The Parquet files of a table in the order of their rows, as pandas, Dask, Polars or DuckDB take them.

    Use these and not `table.file_uris()`, which has no order and which writes a space in a path as `%20`, where no
    reader finds it.
    """
    root = unquote(table.table_uri.rstrip("/").removeprefix("file://"))
    paths = pa.table(table.get_add_actions())["path"].to_pylist()
    return sorted((f"{root}/{unquote(path)}" for path in paths), key=order_of)


def read_arrow(table: DeltaTable, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows in the order in which they were published; text is string, timestamps are microseconds.

    Raises:
        RequestError: a column is not in this version of the table.
        StorageError: a file of this version is gone or unreadable.
    """
    with _ordered(table, columns) as rows:
        return rows.to_table(columns=None if columns is None else list(columns))


def read_batches(
    table: DeltaTable, columns: Sequence[str] | None = None, rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows as `read_arrow` has them, in batches, so that they need not fit the memory; its errors as well.

    With `rows`, batches have no more than so many, and little is read ahead.
    """
    ahead = {} if rows is None else {"batch_size": rows, "batch_readahead": 2, "fragment_readahead": 1}
    with _ordered(table, columns) as whole:
        chosen = whole.schema if columns is None else pa.schema([whole.schema.field(name) for name in columns])
        yield pa.RecordBatch.from_pylist([], chosen)  # a table without rows has columns, too
        yield from whole.to_batches(columns=None if columns is None else list(columns), **ahead)


def rows_where(table: DeltaTable, column: str, value: pa.Scalar) -> pa.Table:
    """The rows whose `column` is `value`, in published order; files and row groups are left out by their statistics.

    Raises as `read_arrow`.
    """
    with _ordered(table, [column]) as rows:
        return rows.to_table(filter=dataset.field(column) == value)


@contextlib.contextmanager
def _ordered(table: DeltaTable, columns: Sequence[str] | None) -> Iterator[dataset.Dataset]:
    """The rows of a table in the order of their files, for a block that reads them."""
    local = _is_local(table)
    path = (unquote(table.table_uri.removeprefix("file://")) if local else table.table_uri).rstrip("/")
    label = f"version {table.version()} of table {path}"
    # Through deltalake's own file system, which is Python, Arrow's threads may abort a process that
    # ends soon after ("terminate called without an active exception").
    native = filesystem.SubTreeFileSystem(path, filesystem.LocalFileSystem()) if local else None
    with explained(label):
        whole = table.to_pyarrow_dataset(filesystem=native)
        for column in columns or ():
            if column not in whole.schema.names:
                raise column_not_found(column, label, whole.schema.names)
        fragments = sorted(whole.get_fragments(), key=lambda fragment: order_of(fragment.path))
        ordered = dataset.FileSystemDataset(fragments, whole.schema, whole.format, whole.filesystem)
        try:
            yield ordered
        except FileNotFoundError as error:
            gone = _one_line(error, lines=1)
            raise StorageError(
                f"A file of {label} is gone ({gone}). Files of versions that no manifest names are removed by "
                "`treadle gc`, and those of other tables by a vacuum; name a newer version."
            ) from error
        except pa.ArrowException as error:
            raise StorageError(f"A file of {label} is damaged ({_one_line(error)}).") from error


def _is_local(table: DeltaTable) -> bool:
    return table.table_uri.startswith("file://")


@dataclass(frozen=True)
class Location:
    """Where a table is: for fsspec (`path`) and for deltalake (`uri`)."""

    fs: fsspec.AbstractFileSystem
    path: str
    uri: str
    options: dict[str, str] | None

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def open(self, version: int | None = None) -> DeltaTable:
        return DeltaTable(self.uri, version=version, storage_options=self.options)

    def head(self) -> DeltaTable | None:
        """The current version, from a fresh handle; None when there is no table."""
        return self.open() if DeltaTable.is_deltatable(self.uri, self.options) else None

    def fingerprint(self, version: int) -> str | None:
        """What the version was made from, when Treadle made it."""
        return self.info(version).get(FINGERPRINT)

    def info(self, version: int) -> dict[str, Any]:
        """What a version's commit says of itself; nothing when its entry in the log is gone.

        Read from the log itself: `DeltaTable.history` finds nothing where the path has a '#' or '?'.
        """
        try:
            lines = self.fs.cat_file(entry(self.path, version)).splitlines()
        except FileNotFoundError:
            return {}
        infos = (json.loads(line).get("commitInfo") for line in lines)
        return next((info for info in infos if info), {})

    def described(self, table: DeltaTable) -> TableVersion:
        held = contents(table)
        return TableVersion(self.name, self.uri, table.version(), held.rows, held.bytes, held.files)


def locate(fs: fsspec.AbstractFileSystem, path: str) -> Location:
    path = str(fs._strip_protocol(path)).rstrip("/")
    if "\\" in path or unquote(path) != path:
        raise RequestError(
            f"A table cannot be in {path}: its log cannot be read where a path has a backslash, or '%' before"
            " two digits. Rename the folder, or choose another one with --root."
        )
    fs.invalidate_cache()
    uri = path if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(path)
    return Location(fs, path, uri, delta_options(fs))


def _no_table(table: Location) -> RequestError:
    folder = table.path.rsplit("/", 1)[0]
    try:
        paths = sorted(str(path).rstrip("/") for path in table.fs.ls(folder, detail=False))
    except FileNotFoundError:
        paths = []
    names = [path.rsplit("/", 1)[-1] for path in paths if table.fs.isdir(f"{path}/_delta_log")]
    there = f"Tables: [{listed(names)}]." if names else "No table is there yet."
    near = did_you_mean(table.name, names)
    return RequestError(f"There is no table '{table.name}' in {folder}. {there}{near}")


def order_of(path: str) -> tuple[int, str]:
    """The key that puts files into the order of their rows; files of other writers come last."""
    name = path.rsplit("/", 1)[-1]
    found = re.match(r"part-(\d+)-", name)
    return (int(found[1]) if found else 1 << 62, name)


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns what the file system or deltalake raises into one message with the remedy."""
    try:
        with storage_errors(path):
            try:
                yield
            except (DeltaError, OSError) as error:
                # deltalake names the operating system's error in the text only.
                found = re.search(r"\(os error (\d+)\)", str(error))
                if found is None:
                    raise
                raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
    except (DeltaError, OSError) as error:
        raise StorageError(f"{path} could not be read or written: {_one_line(error)}") from error


def _one_line(error: Exception, lines: int | None = None) -> str:
    """What deltalake says, without its colours and the stack of its Rust code; the first `lines` of it."""
    text = "\n".join(re.split(r"\n\s*0: ", str(error))[0].splitlines()[:lines])
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", text).split())
