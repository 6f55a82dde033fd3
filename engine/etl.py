"""Stage `etl`: compiles the relational operations, and does those that need more than a row at a time.

Operations on a row only add a step to the program, the function of a partition that later passes apply.
Statistics of all rows are gathered, several in one pass, and become small tables beside the program. Where
rows with equal keys must lie together (windows, dedupe, large joins) the rows so far are exchanged, and a
new program begins. Rows are not written here unless the job is for making them: the features stage applies
the program and writes the rows once, with their features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from treadle.engine import sides
from treadle.engine.artifacts import Piece, Prepared, Source
from treadle.engine.backend import Backend, kinds_of
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.inputs import Inspected
from treadle.engine.job import Job
from treadle.engine.operation import OWN_COLUMNS
from treadle.engine.program import Program, Step
from treadle.engine.relational import Aggregate, Join, Pivot, Sample, Union
from treadle.engine.store import Store
from treadle.engine.walk import Walk
from treadle.errors import RequestError, column_not_found

REVISION = 4


def run(context: Context, source: Source, inspected: dict[int, Inspected]) -> Prepared:
    """Walks the operations; for a job that makes a table, also writes it."""
    walk = Walk.of(context, source, 0)
    for index, given in enumerate(context.job.tables):
        operation = walk.program.resolved(given)
        step = Step(index, operation)
        if isinstance(operation, Join):
            walk.join(step, operation, inspected[index])
        elif isinstance(operation, Union):
            walk.union(step, operation, inspected[index])
        elif isinstance(operation, (Aggregate, Pivot)):
            walk = walk.group(step, operation)
        elif isinstance(operation, Sample) and operation.rows is not None:
            walk.sample(step, operation)
        else:
            if operation.together is not None:
                walk.bring_together(operation.together, index)
            walk.add(step)
    walk.gather()
    if not context.job.is_etl:
        return walk.prepared(None)
    numbered = list(enumerate(walk.partitions))
    futures = context.submit(write_rows, numbered, walk.program, context.folder)
    table = tuple(context.gather(futures, rows=lambda part: part.rows))
    context.store.remove(*walk.files)
    return walk.prepared(table)


def write_rows(item: tuple[int, Sequence[Piece]], program: Program, folder: str) -> Part:
    """On a worker: the prepared rows of one partition as a file of the table `etl`."""
    number, partition = item
    frame = program.rows(partition).drop(columns=list(OWN_COLUMNS), errors="ignore")
    return program.store.write_parquet(f"{folder}/etl-{number:05d}.parquet", program.backend.table(frame))


def outline(job: Job, inspected: Inspected, others: dict[int, Inspected], store: Store) -> Program:
    """The program as far as it is known before anything runs: enough to check columns and types.

    Raises
    ------
    RequestError
        The first operation that reads a column that is not there, or of a type it cannot take.
    """
    return outlines(job, inspected, others, store)[-1]


def outlines(job: Job, inspected: Inspected, others: dict[int, Inspected], store: Store) -> list[Program]:
    """The programs before each operation, and the one after the last.

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
    found = [program]
    for index, given in enumerate(job.tables):
        operation = program.resolved(given)
        step = Step(index, operation)
        if isinstance(operation, Join):
            step = replace(step, side_kinds=tuple(sides.kinds_of_side(operation, others[index]).items()))
        elif isinstance(operation, Union):
            step = _outlined_union(step, operation, program, others[index])
        elif isinstance(operation, (Aggregate, Pivot)):
            frame = program.empty()
            for name in operation.gathers:
                if name not in frame.columns:
                    raise column_not_found(
                        name, f"the input of {step.where}", [str(c) for c in frame if c not in OWN_COLUMNS]
                    )
            table = operation.finish(operation.merge([operation.partial(frame)]))
            _refuse_own_name(map(str, table.columns), step.where)
            if not operation.broadcast:
                id_column = job.data.id if job.data.id in table.columns else None
                program = Program(store, backend, tuple(kinds_of(table).items()), id_column, ())
                found.append(program)
                continue
            step = replace(step, side_kinds=tuple(kinds_of(table).items()))
        _refuse_own_name([*operation.reads, *operation.makes(step.side_columns)], step.where)
        program = replace(program, steps=(*program.steps, step))
        program.empty()
        found.append(program)
    return found


def _outlined_union(step: Step, operation: Union, program: Program, inspected: Inspected) -> Step:
    there = sides.kinds_of_side(operation, inspected)
    here = program.output()
    if program.id_column is not None and program.id_column not in there:
        raise RequestError(
            f"{step.where}: {operation.with_.path} has no column '{program.id_column}', the id of these rows; "
            "rename its own id to that, or leave data.id out."
        )
    kinds = operation.kinds(here, there)
    return replace(step, side_kinds=tuple(there.items()), kinds=tuple(kinds.items()))


def _refuse_own_name(names: Iterable[str], where: str) -> None:
    for name in set(OWN_COLUMNS) & set(names):
        raise RequestError(f"{where}: '{name}' is a name that the engine uses for columns of its own; choose another.")
