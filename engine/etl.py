"""Stage `etl`: compiles the relational operations, gathering the small tables that they need.

Rows are not written here unless the job is for making them: the features stage applies the
compiled program and writes the rows once, with their features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from treadle.engine.aggregate import Aggregate
from treadle.engine.artifacts import Part, Piece, Prepared, Source
from treadle.engine.backend import Backend, kinds_of
from treadle.engine.context import Context
from treadle.engine.inputs import InputFile, Inspected, cut, partition_count, row_bytes
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.engine.relational import Join
from treadle.engine.store import Store
from treadle.engine.text_input import convert_file, rejected
from treadle.errors import DataError, RequestError, column_not_found

if TYPE_CHECKING:
    import pandas as pd

REVISION = 1
CSV_GROWTH = 3
"""Memory of CSV rows by the bytes of their text, at most about."""
BROADCAST_BYTES = 2**30
"""A table that goes to every worker whole; past this it would crowd out the partitions."""


def run(context: Context, source: Source, sides: dict[int, Inspected]) -> Prepared:
    """Walks the operations; an aggregate makes a pass over the rows of the operations before it."""
    job, store = context.job, context.store
    warnings: list[str] = []
    program = Program(store, context.backend, tuple(source.kinds.items()), job.data.id, ())
    parts: dict[int, Part] = {}
    kinds_of_sides: dict[int, dict[str, str]] = {}
    multiplying: list[int] = []
    first = 0
    for index, operation in enumerate(job.tables):
        step = Step(index, operation)
        if isinstance(operation, Join):
            side, twice = _read_side(context, operation, sides[index])
            if twice:
                warnings.append(
                    f"{step.where}: {twice} keys occur more than once in {operation.with_.path}; rows multiply"
                )
                multiplying.append(index)
        elif isinstance(operation, Aggregate):
            side = _group_table(context, program, source.partitions, operation)
            if not operation.broadcast:
                source = _as_source(context, side, index)
                first = index + 1
                id_column = job.data.id if job.data.id in source.kinds else None
                program = Program(store, context.backend, tuple(source.kinds.items()), id_column, ())
                parts, kinds_of_sides, multiplying = {}, {}, []
                continue
        else:
            program = replace(program, steps=(*program.steps, step))
            continue
        parts[index] = store.write_parquet(f"{context.folder}/side-{index}.parquet", context.backend.table(side))
        kinds_of_sides[index] = kinds_of(side)
        step = replace(
            step,
            side=parts[index].path,
            side_kinds=tuple(kinds_of_sides[index].items()),
            multiplies=index in multiplying,
        )
        program = replace(program, steps=(*program.steps, step))
    kinds = program.output()
    table = _write_rows(context, program, source) if job.is_etl else None
    return Prepared(
        source=source,
        first=first,
        sides=parts,
        side_kinds=kinds_of_sides,
        multiplying=tuple(multiplying),
        kinds=kinds,
        table=table,
        warnings=tuple(warnings),
    )


def outline(job: Job, inspected: Inspected, sides: dict[int, Inspected], store: Store) -> Program:
    """The program as far as it is known before anything runs: enough to check columns and types.

    Raises
    ------
    RequestError
        The first operation that reads a column that is not there, or of a type it cannot take.
    """
    backend = Backend()
    if job.data.id is not None and job.data.id not in inspected.kinds:
        raise column_not_found(job.data.id, "the input (data.id)", inspected.kinds)
    _refuse_own_name(inspected.kinds, "the input")
    program = Program(store, backend, tuple(inspected.kinds.items()), job.data.id, ())
    for index, operation in enumerate(job.tables):
        step = Step(index, operation)
        if isinstance(operation, Join):
            for key in operation.on:
                if key not in sides[index].kinds:
                    raise column_not_found(key, f"{operation.with_.path}", sides[index].kinds)
            step = replace(step, side_kinds=tuple(sides[index].kinds.items()))
        elif isinstance(operation, Aggregate):
            frame = program.empty()
            for name in operation.gathers:
                if name not in frame.columns:
                    raise column_not_found(name, f"the input of {step.where}", [str(c) for c in frame if c != ROW_ID])
            table = operation.finish(operation.merge([operation.partial(frame)]))
            if not operation.broadcast:
                id_column = job.data.id if job.data.id in table.columns else None
                program = Program(store, backend, tuple(kinds_of(table).items()), id_column, ())
                continue
            step = replace(step, side_kinds=tuple(kinds_of(table).items()))
        _refuse_own_name([*operation.reads, *operation.makes(step.side_columns)], step.where)
        program = replace(program, steps=(*program.steps, step))
        program.empty()
    return program


def _refuse_own_name(names: Iterable[str], where: str) -> None:
    if ROW_ID in names:
        raise RequestError(f"{where}: '{ROW_ID}' is the engine's own name for the id of a row; choose another name.")


def _read_side(context: Context, operation: Join, inspected: Inspected) -> tuple[pd.DataFrame, int]:
    """The other table of a join, and how many of its keys occur more than once."""
    rows = inspected.rows
    size = CSV_GROWTH * inspected.bytes if rows is None else rows * row_bytes(inspected.kinds)
    if size > BROADCAST_BYTES:
        raise RequestError(
            f"join with {operation.with_.path}: about {size / 2**30:.1f} GiB in memory, more than the "
            f"{BROADCAST_BYTES / 2**30:.0f} GiB that is sent to every worker; aggregate or filter it first."
        )
    files = list(inspected.files)
    if inspected.is_text:
        tasks = [(number, file.path) for number, file in enumerate(files)]
        made = context.gather(context.submit(convert_file, tasks, context.store, inspected, f"{context.folder}/side"))
        rejected([table for _, bad in made for table in bad], 0, f"Mend them in {operation.with_.path}.")
        files = [InputFile(part.path, part.bytes, "", part.rows) for parts, _ in made for part in parts]
    pieces = [piece for partition in cut(files, 1, own=inspected.is_text) for piece in partition]
    if not pieces:
        return context.backend.empty(inspected.kinds), 0
    program = Program(context.store, context.backend, tuple(inspected.kinds.items()), None, ())
    (frame,) = context.gather(context.submit(program.rows, [pieces]))
    frame = frame.drop(columns=ROW_ID).dropna(subset=list(operation.on), ignore_index=True)
    return frame, int(frame.duplicated(subset=list(operation.on)).sum())


def partial_of(partition: Sequence[Piece], program: Program, operation: Aggregate) -> dict[str, pd.DataFrame]:
    """On a worker: what one partition contributes to a group table."""
    return operation.partial(program.rows(partition))


def _group_table(
    context: Context, program: Program, partitions: Sequence[Sequence[Piece]], operation: Aggregate
) -> pd.DataFrame:
    # Groups of a split by path are those of the training rows: the test file is not looked at.
    training = [p for p in partitions if p[0].role != "test"]
    pruned = program.pruned(operation.gathers)
    futures = context.submit(partial_of, training, pruned, operation)
    merge: Callable[[list[dict[str, pd.DataFrame]]], dict[str, pd.DataFrame]] = operation.merge
    table = operation.finish(operation.merge([context.reduce(futures, merge)]))
    size = int(table.memory_usage(index=False).sum())
    if size > BROADCAST_BYTES:
        raise DataError(
            f"aggregate by {list(operation.by)}: {len(table)} groups take {size / 2**30:.1f} GiB, more than the "
            f"{BROADCAST_BYTES / 2**30:.0f} GiB that is sent to every worker; group by fewer columns."
        )
    return table


def _as_source(context: Context, table: pd.DataFrame, index: int) -> Source:
    """One row a group as the new input."""
    if not len(table):
        raise DataError(f"tables.{index} (aggregate): no row is left to group; look at the filters before it.")
    part = context.store.write_parquet(f"{context.folder}/groups-{index}.parquet", context.backend.table(table))
    kinds = kinds_of(table)
    count = context.job.data.partitions or partition_count(part.rows, row_bytes(kinds), len(context.workers))
    partitions = cut([InputFile(part.path, part.bytes, "", part.rows)], count, own=True)
    return Source(kinds=kinds, partitions=partitions, files=(part,))


def write_rows(item: tuple[int, Sequence[Piece]], program: Program, folder: str) -> Part:
    """On a worker: the prepared rows of one partition as a file of the table `etl`."""
    number, partition = item
    frame = program.rows(partition).drop(columns=ROW_ID)
    return program.store.write_parquet(f"{folder}/etl-{number:05d}.parquet", program.backend.table(frame))


def _write_rows(context: Context, program: Program, source: Source) -> tuple[Part, ...]:
    numbered = list(enumerate(source.partitions))
    futures = context.submit(write_rows, numbered, program, context.folder)
    return tuple(context.gather(futures, rows=lambda part: part.rows))
