"""Publishes Parquet files as versions of Delta tables.

Everything that deltalake leaves unchecked is checked here: the files (see `delta_files`), whether the
version was made already, which version the commit replaces, and whether the table's protocol allows
the new schema. A commit either replaces exactly the version that was looked at, or is refused.

It takes two steps, so that several tables can be committed close after each other: `prepare_table` does all
that may take long or go wrong, `Ready.commit` what readers see.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from urllib.parse import unquote

import fsspec
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, TableFeatures
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions
from fsspec.implementations.local import LocalFileSystem

from treadle.engine.delta import (
    FINGERPRINT,
    RESTORED,
    RUN,
    Location,
    TableVersion,
    data_files,
    explained,
    locate,
    open_table,
)
from treadle.engine.delta_files import DataFile, Placed, place, table_schema, without
from treadle.engine.partitioning import folder_of
from treadle.errors import StorageError

_THREADS = 8
# Whoever opens a table reads the log since the last checkpoint, on an object store by some requests an entry.
_CONFIGURATION = {"delta.checkpointInterval": "10"}
# Entries of the log must not go with age, as deltalake would have it after 30 days: manifests name old versions.
_AFTER_COMMIT = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


def commit_table(
    fs: fsspec.AbstractFileSystem,
    table_path: str,
    files: Sequence[DataFile],
    schema: pa.Schema,
    *,
    fingerprint: str,
    metadata: Mapping[str, str],
) -> TableVersion:
    """Makes a new version of a table that holds exactly `files`, in one commit.

    The files are hard-linked into the table's folder where that is possible, else copied, so the ones
    given must never be changed in place. The schema may differ from the last version's; older versions
    keep theirs. When the current version was committed with the same fingerprint, nothing is done and
    that version is returned: a replay commits nothing twice.

    Args:
        files: in the order of their rows.
        schema: of every file; the table gets `table_schema(schema)`.
        fingerprint: at least 12 characters that name what the content was made from.
        metadata: kept with the commit.

    Raises:
        DataError: the schema has columns that a table cannot hold.
        StorageError: a file is not what its description says; another run changed the table meanwhile;
            a full disk or a missing permission. The table is as it was.
    """
    ready = prepare_table(fs, table_path, files, schema, fingerprint=fingerprint, metadata=metadata)
    return ready.look()[1] or ready.commit(ready.base)


def prepare_table(
    fs: fsspec.AbstractFileSystem,
    table_path: str,
    files: Sequence[DataFile],
    schema: pa.Schema,
    *,
    fingerprint: str,
    metadata: Mapping[str, str],
    partition_by: Sequence[str] = (),
) -> Ready:
    """What `commit_table` does before the commit: the files are in the table's folder, and checked. No reader sees it.

    Its arguments and errors are those of `commit_table`. `partition_by` are columns of the schema that the files do
    not have: their `values` tell them.
    """
    table = locate(fs, table_path)
    wanted = table_schema(schema)
    with explained(table.uri):
        head = table.head()
        placed: tuple[Placed, ...] = ()
        if not _is_there(table, head, fingerprint):
            placed = tuple(_place_all(table, head, files, without(wanted, partition_by), fingerprint))
    base = None if head is None else head.version()
    return Ready(table, base, tuple(files), placed, wanted, fingerprint, dict(metadata), tuple(partition_by))


@dataclass(frozen=True)
class Ready:
    """A version of a table that only wants its commit."""

    table: Location
    base: int | None
    """The version that was the current one when the files were placed; None when there was no table yet."""
    files: tuple[DataFile, ...]
    placed: tuple[Placed, ...]
    """None where the current version had the same content when they were to be placed."""
    schema: pa.Schema
    fingerprint: str
    metadata: dict[str, str]
    partition_by: tuple[str, ...]

    def columns_before(self) -> pa.Schema | None:
        """Those of the current version; None where there is no table yet."""
        with explained(self.table.uri):
            head = self.table.head()
            return None if head is None else pa.schema(head.schema().to_arrow())

    def look(self) -> tuple[int | None, TableVersion | None]:
        """The number of the current version, and that version where it was made from the same and is whole.

        None for a table that is not there yet, and for what is still to be committed.
        """
        with explained(self.table.uri):
            head = self.table.head()
            if head is None:
                return None, None
            there = _is_there(self.table, head, self.fingerprint)
            return head.version(), self.table.described(head) if there else None

    def commit(self, base: int | None) -> TableVersion:
        """Makes the version that follows `base`, and only that one.

        Raises:
            StorageError: as `commit_table`.
        """
        table = self.table
        with explained(table.uri):
            head = table.head()
            found = None if head is None else head.version()
            if found != base:
                raise _overtaken(table, base, found)
            placed: Sequence[Placed] = self.placed
            if not placed or _in_use(head).intersection(file.name for file in placed):
                # The table had this content at the time, or has had it since, under the names of these files.
                files = without(self.schema, self.partition_by)
                placed = _place_all(table, head, self.files, files, self.fingerprint)
            try:
                metadata = {**self.metadata, FINGERPRINT: self.fingerprint}
                version = _commit(table, head, placed, (self.schema, self.partition_by), metadata)
            except (DeltaError, OSError) as error:
                return _after_failure(table, head, self.fingerprint, error)
        rows, size = sum(file.rows for file in self.files), sum(file.bytes for file in self.files)
        return TableVersion(table.name, table.uri, version, rows, size, len(self.files))


def restore_table(
    fs: fsspec.AbstractFileSystem,
    table_path: str,
    version: int,
    metadata: Mapping[str, str],
) -> TableVersion:
    """A new version with the content of an older one; nothing is done where the current one has it.

    Raises:
        RequestError: there is no such version.
        StorageError: a file of that version is gone; another run changed the table meanwhile.
    """
    head = open_table(fs, table_path)
    table = locate(fs, table_path)
    old = open_table(fs, table_path, version)
    with explained(table.uri):
        if head.version() == version or set(data_files(head)) == set(data_files(old)):
            return table.described(head)
        fingerprint = table.fingerprint(version)
        kept = {**metadata, RESTORED: str(version), **({FINGERPRINT: fingerprint} if fingerprint else {})}
        head.restore(
            version,
            commit_properties=CommitProperties(custom_metadata=kept, max_commit_retries=0),
            post_commithook_properties=_AFTER_COMMIT,
        )
        return table.described(table.open())


def take_back(
    fs: fsspec.AbstractFileSystem,
    table_path: str,
    before: int | None,
    runs: Collection[str],
    by: str,
) -> bool:
    """Undoes what `runs`, which did not get as far as a manifest, committed; `before` is the version that was found.

    Only where the current version is of one of them; tells whether it was. It stays in the log, and no manifest names
    it; a table that they made is removed. `by` is the run that undoes it.
    """
    table = locate(fs, table_path)
    with explained(table.uri):
        head = table.head()
        if head is None or head.version() == before or table.info(head.version()).get(RUN) not in runs:
            return False
        if before is None:
            fs.rm(table.path, recursive=True)
            return True
    restore_table(fs, table_path, before, {RUN: by})
    return True


def _place_all(
    table: Location, head: DeltaTable | None, files: Sequence[DataFile], schema: pa.Schema, fingerprint: str
) -> list[Placed]:
    is_local = isinstance(table.fs, LocalFileSystem)  # an object store has no folders, and is not asked for them
    if is_local:
        table.fs.makedirs(table.path, exist_ok=True)
    # One commit must not add a path that it also removes, so a name in use is not used again.
    in_use = _in_use(head)
    token = uuid.uuid4().hex[:8]

    def one(numbered: tuple[int, DataFile]) -> Placed:
        number, file = numbered
        stem = f"part-{number:05d}-{fingerprint[:12]}"
        name, spare = f"{stem}.parquet", f"{stem}-{token}.parquet"
        folder = f"{table.path}/{folder_of(file.values)}".rstrip("/")
        if is_local:
            table.fs.makedirs(folder, exist_ok=True)
        with explained(f"{folder}/{name}"):
            placed = place(table.fs, file, folder, schema, spare if name in in_use else name, spare)
        return replace(placed, name=folder_of(file.values) + placed.name, values=file.values)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(one, enumerate(files)))


def _is_there(table: Location, head: DeltaTable | None, fingerprint: str) -> bool:
    """Whether the current version was made from the same, and all of its files are there with their sizes."""
    if head is None or table.fingerprint(head.version()) != fingerprint:
        return False
    added = pa.table(head.get_add_actions())
    paths = [f"{table.path}/{unquote(path)}" for path in added["path"].to_pylist()]
    sizes: dict[str, int] = {}
    for folder in {path.rpartition("/")[0] for path in paths}:
        with contextlib.suppress(FileNotFoundError):
            sizes |= {info["name"]: info["size"] for info in table.fs.ls(folder, detail=True)}
    return [sizes.get(path) for path in paths] == added["size_bytes"].to_pylist()


def _in_use(head: DeltaTable | None) -> set[str]:
    """Names of the current version's files, without those of the folders that partitions are."""
    return set() if head is None else {path.rsplit("/", 1)[-1] for path in data_files(head)}


def _commit(
    table: Location,
    head: DeltaTable | None,
    placed: Sequence[Placed],
    layout: tuple[pa.Schema, Sequence[str]],
    metadata: dict[str, str],
) -> int:
    """Commits the version after `head`, and only that one; returns its number."""
    schema, partition_by = layout
    now = int(time.time() * 1000)
    adds = [AddAction(file.name, file.bytes, dict(file.values), now, True, file.statistics) for file in placed]
    # Without retries a commit fails when its version is taken. With them, deltalake would let an
    # overwrite through after another run's append, and keep the rows of both.
    properties = CommitProperties(custom_metadata=metadata, max_commit_retries=0)
    target = Schema.from_arrow(schema)
    # A write transaction leaves the partition columns as they are, whatever it is told.
    is_other = head is not None and head.metadata().partition_columns != list(partition_by)
    if head is None or is_other:
        if head is not None:
            _allow_timestamps(head, schema)
        create_table_with_add_actions(
            table.uri,
            target,
            adds,
            "error" if head is None else "overwrite",
            partition_by=list(partition_by),
            configuration=_CONFIGURATION,
            storage_options=table.options,
            commit_properties=properties,
            post_commithook_properties=_AFTER_COMMIT,
        )
        return 0 if head is None else head.version() + 1
    _allow_timestamps(head, schema)
    base = head.version()
    head.create_write_transaction(
        [*adds],
        "overwrite",
        target,
        partition_by=list(partition_by),
        commit_properties=properties,
        post_commithook_properties=_AFTER_COMMIT,
    )
    return base + 1


def _allow_timestamps(head: DeltaTable, schema: pa.Schema) -> None:
    """Gives an older table the feature that timestamps without a zone need.

    It takes a commit of its own, without data: deltalake commits such a schema without the feature,
    and refuses to open the table ever after.
    """
    if pa.timestamp("us") not in schema.types:
        return
    if "timestampNtz" not in (head.protocol().reader_features or ()):
        head.alter.add_feature(
            TableFeatures.TimestampWithoutTimezone,
            allow_protocol_versions_increase=True,
            commit_properties=CommitProperties(max_commit_retries=0),
            post_commithook_properties=_AFTER_COMMIT,
        )


def _after_failure(
    table: Location, base: DeltaTable | None, fingerprint: str, error: DeltaError | OSError
) -> TableVersion:
    """Finds out what a commit that raised has come to; raises unless the version is there all the same."""
    head = table.head()
    before = None if base is None else base.version()
    if head is None or head.version() == before:
        raise error
    if table.fingerprint(head.version()) == fingerprint:
        # Another driver published the same content first, or ours failed in what follows the commit.
        return table.described(head)
    raise _overtaken(table, before, head.version()) from error


def _overtaken(table: Location, before: int | None, after: int | None) -> StorageError:
    change = f"(version {'none' if before is None else before} -> {'none' if after is None else after})"
    return StorageError(
        f"Table {table.path} was changed by another run {change} while this one was publishing; run again."
    )
