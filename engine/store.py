"""The artifacts root: an fsspec file system, its folders, and writes that are whole or absent.

<root>/stages/<stage>-<fingerprint>/   outputs of stages, a build cache; stage.json is written last
<root>/stages/checkpoints-<fingerprint>/   of a training that is not done (see treadle.engine.checkpoints)
<root>/stages/made/<job>.json          what a job's stages were made from (see treadle.engine.cache)
<root>/tables/<job>/<table>/           published Delta tables
<root>/models/<name>/<version>/        model bundles; bundle.json is written last
<root>/models/<name>/promotions/       approvals (see treadle.jobs.registry.promotion)
<root>/mlflow.db, mlartifacts/         runs and aliases in MLflow
<root>/unrecorded/                     runs that MLflow is still to be told of
<root>/publications/<job>/             what is about to be published (see treadle.engine.publication)
<root>/runs/<run-id>/                  events.jsonl, and manifest.json, written last of all
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

import fsspec

from treadle.engine.document import Part, digest
from treadle.engine.object_store import create, filesystem_options, putting
from treadle.errors import RequestError, StorageError, unreachable

if TYPE_CHECKING:
    import pyarrow as pa


ROW_GROUP = 131_072
"""Most rows of a row group: small enough to read a part of a file."""
SAMPLED = 4096
"""Rows that tell whether the values of a column repeat."""
OUTCOME = "stage.json"
"""What says that a stage is done, beside its files."""
UNFINISHED = ".tmp"
"""Ending of a file that is being written, or was when its writer was killed."""


def _filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    return _opened(url, os.getpid())  # a fork cannot use the connections of the process that it is from


@functools.lru_cache(maxsize=32)
def _opened(url: str, process: int) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url, **filesystem_options(url))
    except (ImportError, ValueError) as error:
        raise RequestError(f"'{url}' cannot be opened: {error}.") from error
    return fs, path.rstrip("/")


@dataclass(frozen=True)
class Store:
    """Files under an artifacts root. Small and picklable: it travels to the workers."""

    url: str
    run: str = ""
    """Marks unfinished files, so that a run can remove those of its workers that were killed."""

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        return _filesystem(self.url)[0]

    def path(self, relative: str) -> str:
        """The path as the file system understands it."""
        return f"{_filesystem(self.url)[1]}/{relative}"

    def uri(self, relative: str) -> str:
        """The path as other readers understand it: with its scheme, unless it is local."""
        path = self.path(relative)
        return path if self.is_local else str(self.fs.unstrip_protocol(path))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, or one that is mounted here."""
        return "file" in self.fs.protocol

    def exists(self, relative: str) -> bool:
        """Whether a file or folder is there."""
        with storage_errors(self.path(relative)):
            return bool(self.fs.exists(self.path(relative)))

    @contextlib.contextmanager
    def writing(self, relative: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name only when the block ends without an error."""
        with whole_file(self.fs, self.path(relative), self.run) as file:
            yield file

    def remove_unfinished(self, folder: str) -> None:
        """Removes what writers of this run left in a folder when they were killed."""
        if not self.is_local:
            return  # there are none
        with contextlib.suppress(OSError):
            for path in self.fs.ls(self.path(folder), detail=False):
                if self.run and path.endswith(UNFINISHED) and f".{self.run}" in path:
                    self.fs.rm_file(path)

    def write_json(self, relative: str, value: Any) -> None:
        with self.writing(relative) as file:
            file.write(json.dumps(value, indent=1, default=str).encode())

    def create(self, relative: str, value: Any) -> bool:
        """Writes JSON where there is no such file yet; of several who try at once, one is told that it did."""
        final, raw = self.path(relative), json.dumps(value, indent=1, default=str).encode()
        with storage_errors(final):
            if not self.is_local:
                return create(self.fs, final, raw)
            temporary = f"{final}.{self.run}{uuid.uuid4().hex[:8]}{UNFINISHED}"
            os.makedirs(os.path.dirname(final), exist_ok=True)
            try:
                with open(temporary, "wb") as file:
                    file.write(raw)
                os.link(temporary, final)
            except FileExistsError:
                return False
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            return True

    def read_json(self, relative: str) -> Any:
        with storage_errors(self.path(relative)):
            raw = self.fs.cat_file(self.path(relative))
        try:
            return json.loads(raw)
        except ValueError as error:
            raise StorageError(f"{self.path(relative)} is damaged: {error}. Run again with --fresh.") from error

    def forget(self, folder: str) -> None:
        """Takes back that a stage is done, before its files are written anew: nothing half made passes for done."""
        with storage_errors(self.path(folder)), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(f"{folder}/{OUTCOME}"))

    def remove(self, *parts: Part) -> None:
        """Deletes files that are needed no more; those that are gone already do no harm."""
        for part in parts:
            self.remove_file(part.path)

    def remove_file(self, relative: str) -> None:
        """Deletes a file, if it is there."""
        with storage_errors(self.path(relative)), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.path(relative))

    def remove_empty(self, folder: str) -> None:
        """Deletes a folder of this machine when nothing is left in it; object stores have none that are empty."""
        if self.is_local:
            with contextlib.suppress(OSError):
                self.fs.rmdir(self.path(folder))

    def write_parquet(self, relative: str, table: pa.Table) -> Part:
        """Writes zstd Parquet."""
        return self.write_tables(relative, [table])

    def write_tables(self, relative: str, tables: Iterable[pa.Table]) -> Part:
        """Writes tables with the same columns, at least one, as one file; each is let go of before the next is made.

        Every table begins a row group.
        """
        import pyarrow.parquet as pq

        rows, columns = 0, ""
        with self.writing(relative) as file, contextlib.ExitStack() as closing:
            writer: pq.ParquetWriter | None = None
            for table in tables:
                columns = columns or columns_digest(table.schema)
                writer = writer or closing.enter_context(
                    pq.ParquetWriter(file, table.schema, compression="zstd", use_dictionary=repeating(table))
                )
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += table.num_rows
                del table
            closing.close()
            size = file.tell()
        return Part(path=relative, rows=rows, bytes=size, columns=columns)

    def read_parquet(self, relative: str, columns: list[str] | None = None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.path(relative)
        try:
            with self.fs.open(path, "rb") as file:
                return pq.ParquetFile(file).read(columns)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{path} cannot be read: {error}") from error

    def has(self, *parts: Part) -> bool:
        """Whether all these files are there with the sizes that they were written with; a folder is asked once."""
        return not self.lacking(*parts)

    def lacking(self, *parts: Part) -> list[str]:
        """Those of these files that are gone, or have another size than they were written with."""
        sizes: dict[str, int] = {}
        for folder in {self.path(part.path).rpartition("/")[0] for part in parts}:
            with storage_errors(folder), contextlib.suppress(FileNotFoundError):
                sizes |= {found["name"]: found["size"] for found in self.fs.ls(folder, detail=True)}
        return [part.path for part in parts if sizes.get(self.path(part.path)) != part.bytes]

    def stamp(self, relative: str) -> str:
        """A mark that changes when the file is written again: what a process keeps of it goes by this."""
        with storage_errors(self.path(relative)):
            return stamp(self.fs, self.path(relative))

    def list(self, relative: str) -> list[str]:
        """Names in a folder, sorted, without files still being written; none when the folder is absent."""
        names: list[str] = []
        with storage_errors(self.path(relative)), contextlib.suppress(FileNotFoundError):
            names = [p.rstrip("/").rsplit("/", 1)[-1] for p in self.fs.ls(self.path(relative), detail=False)]
        return sorted(name for name in names if not name.endswith(UNFINISHED))


@contextlib.contextmanager
def whole_file(fs: fsspec.AbstractFileSystem, path: str, run: str = "") -> Iterator[IO[bytes]]:
    """A file that appears at its path only when the block ends without an error.

    Where files can be renamed it is made beside its place, with `run` in its name; elsewhere it is one object.
    """
    if "file" not in fs.protocol:
        with storage_errors(path), putting(fs, path) as file:
            yield file
        return
    temporary = f"{path}.{run}{uuid.uuid4().hex[:8]}{UNFINISHED}"
    with storage_errors(path):
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def columns_digest(schema: pa.Schema) -> str:
    """Of the names and types of columns, as a Parquet file has them: text in any of Arrow's layouts is one type."""
    import pyarrow as pa

    def stored(kind: pa.DataType) -> str:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        return "string" if is_text else str(kind)

    return digest([[field.name, stored(field.type)] for field in schema])


def repeating(table: pa.Table) -> list[str]:
    """The columns whose values repeat in a stretch of the rows: a dictionary of the others only costs time."""
    import pyarrow.compute as pc

    start = max((table.num_rows - SAMPLED) // 2, 0)
    stretch = table.slice(start, SAMPLED)
    distinct = ((name, pc.count_distinct(stretch.column(name)).as_py()) for name in table.column_names)
    return [name for name, count in distinct if 2 * count <= stretch.num_rows or table.num_rows < SAMPLED]


def stamp(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """The size of a file, and the tag or time that its file system gives it."""
    info = fs.info(path)
    tag = next((info[key] for key in ("ETag", "mtime", "LastModified", "updated", "created") if key in info), "")
    return f"{info['size']}|{tag}"


def modified(info: Mapping[str, Any]) -> float:
    """When a file was written, as its file system's `info` tells: seconds since 1970; 0 where it does not tell."""
    for key in ("mtime", "LastModified", "updated", "last_modified", "created"):
        found = info.get(key)
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        if isinstance(found, (int, float)):
            return float(found)
    return 0.0


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turns what a file system raises into one message with the remedy."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space there, or choose another folder with --root"
            raise StorageError(f"No space left on the device of {path}; {remedy}.") from error
        said = error.strerror or str(error) or "no such file"
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise StorageError(f"{path} may not be written ({said}); choose another folder with --root.") from error
        if isinstance(error, FileNotFoundError) or error.errno == errno.ENOTDIR:
            raise StorageError(
                f"{path} cannot be found or made ({said}); look at the folder that --root names."
            ) from error
        raise
    except Exception as error:
        if (found := unreachable(error, path)) is None:
            raise
        raise found from error
