"""What a run published, made current again: new versions with the content of old ones.

`prepared` looks at everything and changes nothing; `restore` makes all the commits, the model's version last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from treadle.engine import delta
from treadle.engine.artifacts import Publication, TableRecord
from treadle.engine.bundle import fingerprint_of, load_bundle, versions
from treadle.engine.delta_files import DataFile
from treadle.engine.delta_log import commits
from treadle.engine.events import now
from treadle.engine.store import Store, storage_errors
from treadle.errors import StorageError

MANIFEST = "bundle.json"


@dataclass(frozen=True)
class OldTable:
    """A version to make current, with the files that hold it."""

    record: TableRecord
    files: tuple[DataFile, ...]
    schema: pa.Schema
    fingerprint: str
    current: int
    """The table's current version."""
    is_current: bool
    """Whether that holds the same."""


@dataclass(frozen=True)
class Restoration:
    """All that a run published, found in order."""

    tables: tuple[OldTable, ...]
    model: str | None
    """`name:version`"""
    current_model: str | None
    """The newest version, where it was made from the same."""
    is_current: bool
    """Whether there is nothing to do."""


def prepared(store: Store, tables: Sequence[TableRecord], model: str | None) -> Restoration:
    """Finds the files of all versions of a run, and whether they are current.

    Raises
    ------
    RequestError
        A table or version is not there any more.
    StorageError
        A file of a version is gone, or the model would not predict as it was trained.
    """
    old = tuple(_table(store, record) for record in tables)
    current = None
    if model is not None:
        name, _, number = model.rpartition(":")
        load_bundle(store, name, int(number)).verify()
        newest = versions(store, name)[-1]
        if fingerprint_of(store, name, newest) == fingerprint_of(store, name, int(number)):
            current = f"{name}:{newest}"
    done = model is None or current is not None
    return Restoration(old, model, current, done and all(table.is_current for table in old))


def restore(store: Store, found: Restoration, run: str, metadata: Mapping[str, str]) -> Publication:
    """Commits every version that is not current, and then the model's.

    What is current already is named as it is: done again, this commits nothing twice.

    Parameters
    ----------
    run
        Whose manifest will name the versions.
    metadata
        Of the commits.

    Raises
    ------
    StorageError
        Another run changed a table meanwhile, or the disk is full. Tables that were committed before stay so, and no
        manifest names them.
    """
    tables = []
    for old in found.tables:
        made = delta.commit_table(
            store.fs,
            store.path(old.record.path),
            old.files,
            old.schema,
            fingerprint=old.fingerprint,
            metadata=metadata,
        )
        update = {"version": made.version, "rows": made.rows, "bytes": made.bytes, "files": made.files}
        tables.append(old.record.model_copy(update=update))
    model = found.current_model
    if model is None and found.model is not None:
        model = _copy_bundle(store, found.model, run)
    return Publication(tables=tuple(tables), model=model)


def _table(store: Store, record: TableRecord) -> OldTable:
    path = store.path(record.path)
    opened = delta.open_table(store.fs, path, record.version)
    added = pa.table(opened.get_add_actions()).select(["path", "num_records", "size_bytes"]).to_pylist()
    local = isinstance(store.fs, LocalFileSystem)
    files = [
        DataFile(f"{path}/{unquote(add['path']) if local else add['path']}", add["num_records"], add["size_bytes"])
        for add in sorted(added, key=lambda add: delta.order_of(add["path"]))
    ]
    label = f"version {record.version} of table {path}"
    with storage_errors(path):
        for file in files:
            size = store.fs.size(file.path) if store.fs.exists(file.path) else None
            if size != file.bytes:
                what = "is gone" if size is None else f"has {size} bytes instead of {file.bytes}"
                raise StorageError(f"{label} cannot be made current: its file {file.path} {what}. Run its spec again.")
    head = delta.open_table(store.fs, path).version()
    own, newest = (commits(store.fs, path, [version])[0].properties for version in (record.version, head))
    fingerprint = own.get(delta.FINGERPRINT)
    if fingerprint is None:
        raise StorageError(f"{label} has no {delta.FINGERPRINT}: another program committed it. Run its spec again.")
    schema = next(iter(delta.read_batches(opened))).schema
    is_current = newest.get(delta.FINGERPRINT) == fingerprint
    return OldTable(record, tuple(files), schema, fingerprint, head, is_current)


def _copy_bundle(store: Store, model: str, run: str) -> str:
    """A new version of a model with the files of an old one."""
    name, _, number = model.rpartition(":")
    source = f"models/{name}/{number}"
    document: dict[str, Any] = store.read_json(f"{source}/{MANIFEST}")
    version = _reserve(store, name)
    folder = f"models/{name}/{version}"
    for file in store.list(source):
        if file != MANIFEST:
            with store.fs.open(store.path(f"{source}/{file}"), "rb") as old, store.writing(f"{folder}/{file}") as new:
                shutil.copyfileobj(old, new, 1 << 20)
    # As it is in the file, so that what this version of Treadle does not know of stays, too.
    with store.writing(f"{folder}/{MANIFEST}") as file_:
        file_.write(json.dumps({**document, "version": version, "run": run, "created": now()}, indent=1).encode())
    return f"{name}:{version}"


def _reserve(store: Store, name: str) -> int:
    """The next version number, whose folder is made here, so that two at once do not share it."""
    while True:
        version = max((int(found) for found in store.list(f"models/{name}") if found.isdigit()), default=0) + 1
        try:
            store.fs.makedirs(store.path(f"models/{name}/{version}"), exist_ok=False)
        except FileExistsError:
            continue
        return version
