"""A version of a Delta table as an input: its files, in the order of their rows, and its partition columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from treadle.engine import delta
from treadle.engine.inputs import Inspected, filesystem
from treadle.engine.readers.hive import typed_values
from treadle.engine.readers.parquet import check_given, column_kinds, read_footers
from treadle.engine.readers.schemas import Rules, unify
from treadle.errors import DataError, shortened

HARMLESS = frozenset(
    {"columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "v2Checkpoint", "vacuumProtocolCheck"}
)
"""Features with which the rows of a version are those of its files; the first two are looked at besides."""
REMEDY = "write its rows to a table without that, or as Parquet, and read those"


def inspect(path: str, version: int | None, types: Mapping[str, str]) -> Inspected:
    """The files of a version of the table, the newest when None. A column that a file lacks is null there.

    Raises
    ------
    RequestError
        There is no such table or version, a given type for a column that is not there.
    DataError
        The rows of the version are not those of its files; a file is gone or damaged.
    StorageError
        deltalake itself cannot read the table's log, or a feature of the table.
    """
    fs, bare = filesystem(path)
    table = delta.open_table(fs, bare.rstrip("/"), version)
    place = f"version {table.version()} of '{path}'"
    _check_features(table, place)
    kinds = column_kinds(pa.schema(table.schema().to_arrow()))
    unified = unify({place: {name: {kind: place} for name, kind in kinds.items()}}, types, Rules())
    values = _partition_values(table, path.rstrip("/"), place)
    of_partitions = {name: kinds[name] for name in table.metadata().partition_columns if name in unified.kinds}
    _, written = typed_values(values, {**of_partitions, **{n: t for n, t in types.items() if n in of_partitions}})
    files = []
    for footer in read_footers({file: {} for file in values}):
        check_given(footer, types)
        own = written[footer.file.path]
        constants = {name: own.get(name) for name in unified.kinds if name in own or name not in footer.kinds}
        files.append(replace(footer.file, constants=tuple(constants.items())))
    return Inspected(
        "delta",
        tuple(files),
        unified.kinds,
        left_out=unified.left_out,
        version=table.version(),
        notes=unified.notes,
    )


def _partition_values(table: DeltaTable, root: str, place: str) -> dict[str, dict[str, str | None]]:
    """Paths of the version's files, in the order of their rows, with the values of their partition columns.

    A log may name any file of the machine. Whoever lets a job read a folder has not allowed that.
    """
    names = table.metadata().partition_columns
    found = {}
    for action in pa.table(table.get_add_actions(flatten=True)).to_pylist():
        path = unquote(action["path"])
        if "::" in path or "://" in path or path.startswith("/") or ".." in path.split("/"):
            raise DataError(f"{place} has files outside of the table's folder ('{shortened(path)}'); {REMEDY}.")
        found[f"{root}/{path}"] = {name: _text(action[f"partition.{name}"]) for name in names}
    return dict(sorted(found.items(), key=lambda item: (delta.order_of(item[0]), item[0])))


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    if isinstance(value, dt.date):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_features(table: DeltaTable, place: str) -> None:
    """Refuses a version whose files have other rows or other names of columns than the version."""
    features = set(table.protocol().reader_features or ())
    unknown = sorted(features - HARMLESS)
    if unknown:
        raise DataError(f"{place} uses the feature '{unknown[0]}', which Treadle does not read; {REMEDY}.")
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        raise DataError(f"{place} uses column mapping, which Treadle does not read; {REMEDY}.")
    if "deletionVectors" in features and _has_deletion_vectors(table, place):
        raise DataError(
            f"{place} has deletion vectors, which Treadle does not read; rewrite its files without the deleted rows "
            "(REORG TABLE ... APPLY (PURGE) in Spark), and read the version after that."
        )


def _has_deletion_vectors(table: DeltaTable, place: str) -> bool:
    with delta.explained(place):
        return any(batch.num_rows for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()))
