"""How a job's tables are laid out: what the spec may ask for, files by partition, and rules for their columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from treadle.engine.commits import Ready, prepare_table
from treadle.engine.context import Context
from treadle.engine.delta import RUN
from treadle.engine.delta_files import DataFile, schema_of, table_schema
from treadle.engine.document import Part, digest
from treadle.engine.job import Job
from treadle.engine.partitioning import Piece, check_count, split_part
from treadle.engine.sections.outputs import Output
from treadle.errors import DataError, RequestError, column_not_found, listed
from treadle.versions import version_of

KINDS = ("text", "int", "bool")
"""Of partition columns: their values are names of folders."""


def check(job: Job, kinds: Mapping[str, str]) -> None:
    """Refuses what cannot be partitioned by; `kinds` are those of the columns after `tables`.

    Raises
    ------
    RequestError
        A column that the table will not have, or of a kind that has no names for folders.
    """
    for name, output in job.artifacts.tables.items():
        columns = _columns(job, name, kinds)
        for column in output.partition_by:
            where = f"artifacts.tables.{name}.partition_by"
            if column not in columns:
                raise column_not_found(column, f"what is known of the table {name} ({where})", columns)
            if columns[column] not in KINDS:
                raise RequestError(
                    f"{where}: '{column}' is {columns[column]}; folders are named by text, int or bool. "
                    "Derive such a column in tables, e.g. the month of a time."
                )
        if name == "etl" and len(set(output.partition_by)) == len(columns):
            raise RequestError(f"artifacts.tables.{name}.partition_by: no column of the table would be left.")


def _columns(job: Job, table: str, kinds: Mapping[str, str]) -> dict[str, str]:
    """Columns of a table that are known before it is made, with their kinds."""
    if table == "etl":
        return dict(kinds)
    target = {} if job.data.target is None else {job.data.target: kinds.get(job.data.target, "text")}
    if table == "features":
        protected = {f"protected.{name}": kinds[name] for name in job.data.protected if name in kinds}
        return {"split": "text", **target, **protected}
    return {"class": next(iter(target.values()), "text")}


def prepare(context: Context, name: str, parts: Sequence[Part], fingerprint: str) -> tuple[Ready, list[Part]]:
    """The files of a table in its folder and checked, by partition where the spec says so; and files to delete after.

    Raises
    ------
    DataError
        The columns are not those that the spec's rule allows; a value that no partition can have.
    StorageError
        A file is not what it should be.
    """
    store = context.store
    output = context.job.artifacts.tables.get(name, Output())
    schema = schema_of(store.fs, DataFile.of(store, parts[0]))
    pieces = [Piece(part=part, values=()) for part in parts]
    if output.partition_by:
        pieces = _split(context, name, parts, output.partition_by)
        fingerprint = digest([fingerprint, output.partition_by])
    ready = prepare_table(
        store.fs,
        store.path(f"tables/{context.job.name}/{name}"),
        [DataFile.of(store, piece.part, piece.values) for piece in pieces],
        schema,
        fingerprint=fingerprint,
        metadata={RUN: context.run_id, "treadle.spec": context.spec_digest, "treadle.version": version_of("treadle")},
        partition_by=output.partition_by,
    )
    if output.schema_ != "any" and (before := ready.columns_before()) is not None:
        _check_schema(name, output, before, table_schema(schema))
    return ready, [piece.part for piece in pieces] if output.partition_by else []


def _split(context: Context, name: str, parts: Sequence[Part], columns: Sequence[str]) -> list[Piece]:
    items = [(part, f"{context.folder}/{name}-{number:05d}") for number, part in enumerate(parts)]
    futures = context.submit(_split_one, items, context.store, tuple(columns))
    pieces = [piece for found in context.gather(futures) for piece in found]
    check_count(len({piece.values for piece in pieces}), columns)
    return pieces


def _split_one(item: tuple[Part, str], store: object, columns: Sequence[str]) -> list[Piece]:
    from treadle.engine.store import Store

    assert isinstance(store, Store)
    return split_part(store, item[0], columns, item[1])


def _check_schema(name: str, output: Output, before: pa.Schema, after: pa.Schema) -> None:
    """Refuses a version whose columns the rule does not allow after those of the current version."""
    gone = [column for column in before.names if column not in after.names]
    new = [column for column in after.names if column not in before.names]
    other = [
        f"'{field.name}' is {after.field(field.name).type} and was {field.type}"
        for field in before
        if field.name in after.names and after.field(field.name).type != field.type
    ]
    faults = [f"columns are gone: [{listed(gone)}]"] if gone else []
    faults += [listed(other)] if other else []
    faults += [f"columns are new: [{listed(new)}]"] if new and output.schema_ == "fixed" else []
    if faults:
        raise DataError(
            f"Table {name} would change its columns, which artifacts.tables.{name}.schema: {output.schema_} does not "
            f"allow: {'; '.join(faults)}. Nothing was published; set it to any, or give the job another name."
        )
