"""Stage `read`: the input as partitions of typed rows, with broken rows of text files set aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from treadle.engine.artifacts import Origin, Piece, Role, Source
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.expectations import place_of
from treadle.engine.inputs import InputFile, Inspected, cut, row_bytes
from treadle.engine.job import Job
from treadle.engine.text_input import convert_file, rejected
from treadle.errors import DataError, RequestError, column_not_found

REVISION = 2


def run(context: Context, inspected: Inspected, test: Inspected | None) -> Source:
    """Parquet stays where it is; text files are written once as Parquet, in parallel over files."""
    sources = [inspected] if test is None else [inspected, test]
    roles: list[Role] = ["any"] if test is None else ["train", "test"]
    partitions: list[tuple[Piece, ...]] = []
    files: list[Part] = []
    bad: list[pa.Table] = []
    origins: dict[str, Origin] = {}
    offset = 0
    room = context.room
    for source, role in zip(sources, roles, strict=True):
        own = source.is_text
        inputs = list(source.files)
        if own:
            inputs = []
            tasks = [(number, file.path) for number, file in enumerate(source.files)]
            futures = context.submit(convert_file, tasks, context.store, source, f"{context.folder}/{role}")
            made = context.gather(futures, rows=lambda made: sum(part.rows for part in made[0]))
            for file, (parts, broken) in zip(source.files, made, strict=True):
                before = 0
                for part in parts:
                    origins[part.path] = Origin(file=file.path, before=before)
                    before += part.rows
                files += parts
                bad += broken
                inputs += [InputFile(part.path, part.bytes, "", part.rows) for part in parts]
        rows = sum(file.rows or 0 for file in inputs)
        count = context.job.data.partitions or room.partitions(rows, row_bytes(source.kinds))
        partitions += cut(inputs, count, own=own, offset=offset, role=role)
        offset += rows
    quarantine, bad_rows = _set_aside(context, bad)
    if not partitions:
        raise DataError(f"The input {context.job.data.path} has no rows.")
    warnings = [f"data: {note}" for source in sources for note in source.warnings]
    if bad_rows:
        warnings.append(f"{bad_rows} broken rows were set aside in the table `quarantine`")
    return Source(
        kinds=inspected.kinds,
        partitions=tuple(partitions),
        files=tuple(files),
        quarantine=quarantine,
        bad_rows=bad_rows,
        origins=origins,
        warnings=tuple(warnings),
    )


def _set_aside(context: Context, bad: list[pa.Table]) -> tuple[tuple[Part, ...], int]:
    table = rejected(
        bad,
        context.job.data.bad_rows.limit,
        "Mend them, or raise the limit to set them aside in the table `quarantine`.",
    )
    if table is None:
        return (), 0
    return (context.store.write_parquet(f"{context.folder}/quarantine.parquet", table),), table.num_rows


def check_test(train: Inspected, test: Inspected) -> None:
    """Refuses a test input that lacks a column of the training input, or has it with another type."""
    for name, kind in train.kinds.items():
        if name not in test.kinds:
            raise column_not_found(name, f"the test input {test.files[0].path}", test.kinds)
        if test.kinds[name] != kind:
            raise RequestError(
                f"Column '{name}' is {kind} in {train.files[0].path} and {test.kinds[name]} in {test.files[0].path}; "
                "the training and test inputs must agree."
            )


def check_left_out(job: Job, inspected: Inspected, sides: Mapping[int, Inspected]) -> None:
    """Refuses a column that is left out for its type where the spec names it; others are no loss.

    Raises
    ------
    DataError
        The first one, with its place in the spec.
    """
    named: list[tuple[str, Sequence[str | None]]] = [("data.id", [job.data.id])]
    named += [(place_of(index, expectation), expectation.reads) for index, expectation in enumerate(job.contract)]
    made: set[str] = set()
    for index, operation in enumerate(job.tables):
        where = f"tables.{index} ({operation.op})"
        named.append((where, [name for name in operation.reads if name not in made]))
        side_columns: Sequence[str] = ()
        if index in sides:
            _refuse_left_out(where, getattr(operation, "on", ()), sides[index])
            side_columns = list(sides[index].kinds)
        made |= operation.makes(side_columns)
    later = [job.data.target, job.data.weight, *job.data.protected, *job.split_columns]
    named.append(("data or split", [name for name in later if name not in made]))
    for index, feature in enumerate(job.features):
        columns = getattr(feature, "columns", ())
        if not isinstance(columns, str):
            named.append((f"features.{index} ({feature.op})", [name for name in columns if name not in made]))
    for where, names in named:
        _refuse_left_out(where, names, inspected)


def _refuse_left_out(where: str, names: Sequence[str | None], inspected: Inspected) -> None:
    for name in names:
        if name is not None and name in inspected.left_out:
            keep = f", or keep its JSON with data.types: {{{name}: text}}" if inspected.format == "jsonl" else ""
            raise DataError(
                f"{where}: column '{name}' of '{inspected.files[0].path}' has type {inspected.left_out[name]}, which "
                f"Treadle does not take; flatten it in the file{keep}. Such columns are left out where no one names "
                "them."
            )
