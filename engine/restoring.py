"""What a run published, made current again: new versions with the content of old ones.

`prepared` looks at everything and changes nothing that a reader sees; `commit_all` makes the commits.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from treadle.engine import delta
from treadle.engine.artifacts import TableRecord
from treadle.engine.bundle import BundleDocument, complete_versions, fingerprint_of, is_sound, load_bundle
from treadle.engine.bundling import next_reference
from treadle.engine.commits import Ready, prepare_table
from treadle.engine.delta import TableVersion
from treadle.engine.delta_files import DataFile
from treadle.engine.delta_log import commits
from treadle.engine.events import now
from treadle.engine.mlmodel import write_mlmodel
from treadle.engine.partitioning import partition_text
from treadle.engine.store import Store, storage_errors
from treadle.errors import StorageError

DOCUMENT = "bundle.json"


def prepared(store: Store, tables: Sequence[TableRecord], metadata: Mapping[str, str]) -> dict[str, Ready]:
    """By name, the versions that hold what the tables held; `metadata` is for their commits.

    Raises
    ------
    RequestError
        A table or version is not there any more.
    StorageError
        A file of a version is gone, or another program committed it.
    """
    found = [(record, *_files(store, record)) for record in tables]  # all are looked at before one is prepared
    return {
        record.name: prepare_table(
            store.fs,
            store.path(record.path),
            files,
            schema,
            fingerprint=fingerprint,
            metadata=metadata,
            partition_by=[name for name, _ in files[0].values] if files else (),
        )
        for record, files, schema, fingerprint in found
    }


def _files(store: Store, record: TableRecord) -> tuple[list[DataFile], pa.Schema, str]:
    """Those of a version, in order, with their schema, and what the version was made from."""
    path = store.path(record.path)
    label = f"version {record.version} of table {path}"
    opened = delta.open_table(store.fs, path, record.version)
    added = pa.table(opened.get_add_actions()).to_pylist()
    files = []
    for add in sorted(added, key=lambda add: delta.order_of(add["path"])):
        file = f"{path}/{unquote(add['path'])}"
        with storage_errors(path):
            size = store.fs.size(file) if store.fs.exists(file) else None
        if size != add["size_bytes"]:
            what = "is gone" if size is None else f"has {size} bytes instead of {add['size_bytes']}"
            raise StorageError(f"{label} cannot be made current: its file {file} {what}. Run its spec again.")
        values = tuple((name, partition_text(value)) for name, value in (add.get("partition") or {}).items())
        files.append(DataFile(file, add["num_records"], add["size_bytes"], values))
    (commit,) = commits(store.fs, path, [record.version])
    fingerprint = commit.properties.get(delta.FINGERPRINT)
    if fingerprint is None:
        raise StorageError(f"{label} cannot be made current: another program committed it. Run its spec again.")
    return files, next(iter(delta.read_batches(opened))).schema, fingerprint


@dataclass(frozen=True)
class OldBundle:
    """A published bundle, for a new version with the same content."""

    store: Store
    name: str
    version: int
    run: str
    """Whose manifest names the new version."""

    def verify(self) -> None:
        """StorageError where it would not predict as it was trained, RequestError where it is gone."""
        load_bundle(self.store, self.name, self.version).verify()

    def existing(self) -> str | None:
        """`name:version` of the newest one, when it was made from the same."""
        newest = complete_versions(self.store, self.name)[-1]
        made_from = fingerprint_of(self.store, self.name, self.version)
        same = newest == self.version or fingerprint_of(self.store, self.name, newest) == made_from is not None
        return f"{self.name}:{newest}" if same and is_sound(self.store, self.name, newest) else None

    def next_reference(self, left: Collection[str]) -> str:
        """`name:version` for a new one."""
        return next_reference(self.store, self.name, left)

    def write(self, reference: str) -> Callable[[Mapping[str, TableVersion]], None]:
        """Copies all of it but bundle.json, which the function that it returns writes."""
        version = int(reference.rpartition(":")[2])
        old, new = f"models/{self.name}/{self.version}", f"models/{self.name}/{version}"
        for file in self.store.list(old):
            if file != DOCUMENT:
                path = self.store.path(f"{old}/{file}")
                with self.store.fs.open(path, "rb") as source, self.store.writing(f"{new}/{file}") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        # As it is in the file, so that what this version of Treadle does not know of stays, too.
        document: dict[str, Any] = self.store.read_json(f"{old}/{DOCUMENT}")
        changed = {**document, "version": version, "run": self.run, "created": now()}
        write_mlmodel(self.store, new, BundleDocument.model_validate(changed))

        def publish(_versions: Mapping[str, TableVersion]) -> None:
            with self.store.writing(f"{new}/{DOCUMENT}") as file:
                file.write(json.dumps(changed, indent=1).encode())

        return publish
