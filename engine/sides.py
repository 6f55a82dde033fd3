"""Other tables that operations take: those of joins and unions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.exchange import Partitions
from treadle.engine.inputs import InputFile, Inspected, cut, partition_count, row_bytes
from treadle.engine.operation import ROW_ID, Operation
from treadle.engine.program import Program, Step
from treadle.engine.relational import Filter, Join, Rename, Select, Union
from treadle.engine.text_input import convert_file, rejected
from treadle.errors import RequestError, column_not_found

if TYPE_CHECKING:
    import pandas as pd

CSV_GROWTH = 3
"""Memory of CSV rows by the bytes of their text, at most about."""
BROADCAST_BYTES = 2**30
"""A table that goes to every worker whole; past this it would crowd out the partitions."""
BROADCAST_SHARE = 0.15
"""And this share of a worker's memory."""


def kinds_of_side(operation: Join | Union, inspected: Inspected) -> dict[str, str]:
    """The columns that an operation takes of its other table, under the names that it gives them.

    Raises
    ------
    RequestError
        A column that is not there, two columns of one name, a key that is missing.
    """
    side, path = operation.with_, f"{operation.with_.path}"
    for name in (*(side.columns or ()), *side.rename):
        if name not in inspected.kinds:
            raise column_not_found(name, path, inspected.kinds)
    taken = side.kinds(inspected.kinds)
    names = side.renamed(list(taken))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RequestError(f"{path}: rename makes two columns called '{twice[0]}'.")
    kinds = dict(zip(names, taken.values(), strict=True))
    if isinstance(operation, Join):
        for key in operation.keys_there:
            if key not in kinds:
                raise column_not_found(key, path, kinds)
        if operation.how in ("semi", "anti"):
            return {key: kinds[key] for key in operation.on}
    return kinds


def size_of(inspected: Inspected, kinds: Mapping[str, str]) -> int:
    """Bytes of the columns `kinds` in memory, about."""
    return CSV_GROWTH * inspected.bytes if inspected.rows is None else inspected.rows * row_bytes(dict(kinds))


def most_broadcast(worker_memory: int | None) -> int:
    """The largest table, in bytes, that goes whole to every worker with so much memory."""
    return BROADCAST_BYTES if worker_memory is None else min(BROADCAST_BYTES, int(BROADCAST_SHARE * worker_memory))


def broadcast_limit(context: Context) -> int:
    """The largest table, in bytes, that goes to every worker whole."""
    return most_broadcast(context.room.limit)


def partitions_of(
    context: Context, inspected: Inspected, path: str, index: int, entering: bool = False, offset: int = 0
) -> tuple[Partitions, tuple[Part, ...]]:
    """The rows of another table as partitions, text converted first, and the files that were made.

    `entering` marks them as rows that come in at the operation `index`, numbered from `offset`; where training and
    test rows are files of their own, they are training rows.
    """
    files, made = list(inspected.files), []
    if inspected.is_text:
        tasks = [(number, file.path) for number, file in enumerate(files)]
        prefix = f"{context.folder}/side-{index}"
        converted = context.gather(context.submit(convert_file, tasks, context.store, inspected, prefix))
        rejected([table for _, bad in converted for table in bad], 0, f"Mend them in {path}.")
        made = [part for parts, _ in converted for part in parts]
        files = [InputFile(part.path, part.bytes, "", part.rows) for part in made]
    rows = sum(file.rows or 0 for file in files)
    count = partition_count(rows, row_bytes(inspected.kinds), 1, context.room.partition_bytes)
    by_path = entering and context.job.split is not None and context.job.split.kind == "path"
    partitions = cut(files, count, own=bool(made), offset=offset, role="train" if by_path else "any")
    if entering:
        partitions = tuple(tuple(p.model_copy(update={"step": index}) for p in pieces) for pieces in partitions)
    return partitions, tuple(made)


def program_of(context: Context, operation: Join, inspected: Inspected) -> Program:
    """From the other table's rows those that can match, with the columns that are taken, renamed."""
    kinds = operation.with_.kinds(inspected.kinds)
    steps: list[Operation] = []
    if operation.with_.rename:
        steps.append(Rename(op="rename", columns=operation.with_.rename))
    steps.append(Select(op="select", columns=tuple(kinds_of_side(operation, inspected))))
    steps.append(Filter(op="filter", sql=" and ".join(f"{quoted(key)} is not null" for key in operation.keys_there)))
    numbered = tuple(Step(number, step) for number, step in enumerate(steps))
    return Program(context.store, context.backend, tuple(kinds.items()), None, numbered)


def quoted(name: str) -> str:
    """A column's name in an SQL expression."""
    return '"' + name.replace('"', '""') + '"'


def load(context: Context, program: Program, partitions: Partitions) -> pd.DataFrame:
    """The other table of a join whole."""
    if not partitions:
        return program.empty().drop(columns=ROW_ID)
    pieces = [piece for partition in partitions for piece in partition]
    (frame,) = context.gather(context.submit(program.rows, [pieces]))
    return frame.drop(columns=ROW_ID)
