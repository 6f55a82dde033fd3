"""The rows of a run that its bundle keeps (`treadle.engine.skew`): which, and what the run made of them.

They are test rows, the first by a hash of their ids, so that no partitioning changes them; of the candidates
those come first that bring a null to a column without one so far. Their features are those of the run's
feature table, and are found by their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from treadle.engine.artifacts import Features, Piece, Prepared, Source, Trained
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.exchange import Partitions
from treadle.engine.left_out import row_numbers
from treadle.engine.models.base import load_model
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.engine.relational import Dedupe, Union
from treadle.engine.relational.keys import hash_keys
from treadle.engine.skew import Sample
from treadle.engine.store import ROW_GROUP, Store, storage_errors

CANDIDATES = 2
"""Ids that are looked at for each row that is kept: some occur more than once, some rows have the nulls."""


def sample_of(
    context: Context,
    prepared: Prepared,
    raw: Source,
    replay: tuple[Program, Sequence[Step]],
    features: Features,
    best: Trained,
) -> Sample | str:
    """The sample of a run, or why it has none.

    Parameters
    ----------
    raw
        The rows before all operations.
    replay
        What is repeated on raw rows, and what is left out of it, as `replayable` has them.
    """
    program, left_out = replay
    count = context.job.artifacts.sample
    reason = reason_against(program, left_out) if count else "the spec has artifacts.sample: 0"
    source = raw if prepared.first == 0 else prepared.source
    if reason is None and prepared.start > prepared.first > 0:
        reason = f"the rows that tables.{prepared.first} began with were exchanged, and are not kept"
    if reason is not None:
        return reason

    def each(function: Callable[..., pa.Table], items: Sequence[Any], *arguments: Any) -> pa.Table:
        tables = context.gather(context.submit(function, items, *arguments))
        return pa.concat_tables(tables).combine_chunks()

    store, seed = context.store, context.job.seed + 1
    candidates = _first(each(first_ids, features.table, store, seed, CANDIDATES * count), seed, CANDIDATES * count)
    made = each(rows_made, features.table, store, candidates)
    there = each(raw_rows, _own(source.partitions), program, candidates)
    kept = candidates.filter(pc.and_(_once(candidates, made.column("id")), _once(candidates, there.column(ROW_ID))))
    made = made.take(pc.index_in(kept, value_set=made.column("id")))
    there = there.take(pc.index_in(kept, value_set=there.column(ROW_ID)))
    tested = pc.equal(made.column("split"), "test")
    made, there = made.filter(tested), there.filter(tested).drop_columns([ROW_ID])
    chosen = pa.array(with_nulls(there, count), pa.int64())
    made, there = made.take(chosen), there.take(chosen)
    if not made.num_rows:
        return "no row of the test set has an id that no other row has"
    matrix = np.stack([made.column(name).to_numpy() for name in features.names], axis=1)
    margins = load_model(store, best.folder).margin(matrix).reshape(len(matrix), -1)
    return Sample(made.column("id").combine_chunks(), there, matrix, margins)


def reason_against(program: Program, left_out: Sequence[Step]) -> str | None:
    """Why single rows do not replay to what they became in the run; None where they do.

    A row that a dedupe kept is kept among others of that kind, too.
    """
    for step in program.steps:
        if step.operation.together is not None and not isinstance(step.operation, Dedupe):
            return f"{step.where} looks at other rows than the one that it is about"
        if isinstance(step.operation, Union) and program.id_column is not None:
            return f"{step.where} brings rows in whose ids may be those of other rows"
        if step.multiplies and left_out:
            return f"{step.where} makes several rows of one, and {left_out[0].where} is not replayed"
    return None


def first_ids(part: Part, store: Store, seed: int, count: int) -> pa.Table:
    """On a worker: the ids of test rows in a part of the feature table that come first."""
    table = store.read_parquet(part.path, ["id", "split"])
    ids = table.filter(pc.equal(table.column("split"), "test")).column("id")
    return pa.table({"id": _first(pa.table({"id": ids}), seed, count)})


def _first(table: pa.Table, seed: int, count: int) -> pa.Array:
    """The `count` distinct ids with the least hashes, in that order."""
    ids = table.column("id").unique()
    hashes = hash_keys(Backend().frame(pa.table({"id": ids}))["id"], seed)
    return ids.take(pa.array(np.argsort(hashes, kind="stable")[:count]))


def rows_made(part: Part, store: Store, ids: pa.Array) -> pa.Table:
    """On a worker: the rows of a part of the feature table that have one of the ids."""
    path = store.path(part.path)
    with storage_errors(path), store.fs.open(path, "rb") as raw, pq.ParquetFile(raw) as file:
        found = [file.schema_arrow.empty_table()]
        for group in range(file.num_row_groups):
            has = pc.is_in(file.read_row_group(group, ["id"]).column("id"), value_set=ids)
            if pc.any(has).as_py():
                found.append(file.read_row_group(group).filter(has))
    return pa.concat_tables(found)


def raw_rows(partition: Sequence[Piece], program: Program, ids: pa.Array) -> pa.Table:
    """On a worker: the rows of a partition before any step that have one of the ids, which are in `__id__`."""
    kinds = tuple((name, kind) for name, kind in program.kinds if name == program.id_column)
    looking = replace(program, kinds=kinds)
    found = [program.backend.table(replace(program, steps=()).empty())]
    for piece in partition:
        numbers = row_numbers(program.store, piece)
        if program.id_column is not None:
            named = program.backend.table(looking.read([piece])[[ROW_ID]])
            numbers = numbers[_known(named.column(ROW_ID), ids)]
        else:
            numbers = numbers[_known(pa.array(numbers), ids)]
        # No more is read than the row groups that hold them.
        for window in np.unique((numbers - piece.offset + piece.start) // ROW_GROUP).tolist():
            start, stop = max(window * ROW_GROUP, piece.start), min((window + 1) * ROW_GROUP, piece.stop)
            offset = piece.offset + start - piece.start
            some = piece.model_copy(update={"start": start, "stop": stop, "offset": offset})
            rows = program.backend.table(program.read([some]))
            found.append(rows.filter(pa.array(_known(rows.column(ROW_ID), ids))))
    return pa.concat_tables(found)


def with_nulls(rows: pa.Table, count: int) -> list[int]:
    """The places, ascending, of at most `count` rows: up to half bring nulls to columns, the rest come first."""
    lacking = {name for name in rows.column_names if rows.column(name).null_count}
    null = {name: rows.column(name).is_null().to_pylist() for name in lacking}
    chosen: list[int] = []
    for row in range(rows.num_rows):
        brought = {name for name in lacking if null[name][row]}
        if brought and len(chosen) < (count + 1) // 2:
            chosen.append(row)
            lacking -= brought
    first = [row for row in range(rows.num_rows) if row not in chosen]
    return sorted([*chosen, *first[: count - len(chosen)]])


def _own(partitions: Partitions) -> Partitions:
    """Those of the rows themselves, without rows that come in later by a union."""
    return tuple(partition for partition in partitions if partition[0].step is None)


def _known(values: pa.Array | pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    return pc.is_in(values, value_set=ids).to_numpy(zero_copy_only=False)


def _once(ids: pa.Array, among: pa.ChunkedArray) -> pa.Array:
    """Which ids occur just once."""
    counts = pc.value_counts(among)
    once = counts.field("values").filter(pc.equal(counts.field("counts"), 1))
    return pc.is_in(ids, value_set=once)
