"""The walk over the relational operations of a job: how far they are compiled, and what was done on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from treadle.engine import sides
from treadle.engine.artifacts import Prepared, Source, rows_of
from treadle.engine.backend import kinds_of
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.exchange import (
    Partitions,
    bucket_count,
    exchange,
    exchange_both,
    exchanged,
    keys_repeated,
    merged,
    refuse_too_many,
    width_of,
)
from treadle.engine.gathering import Grouping, GroupTable, as_source, group_tables, sample_bound
from treadle.engine.inputs import Inspected
from treadle.engine.lookahead import held_after, keys_of_later, only, shared_keys, still_used
from treadle.engine.program import Program, Step
from treadle.engine.relational import (
    Drop,
    Join,
    Sample,
    Select,
    Union,
)
from treadle.engine.relational.keys import repeats
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Walk:
    """The rows that there are, and what is still to be done with them."""

    context: Context
    source: Source
    partitions: Partitions
    program: Program
    """From the partitions' rows to those after the last operation."""
    replay: Program
    """From raw rows to the same."""
    first: int
    start: int
    rows: int
    """Rows of the partitions; filters may leave fewer."""
    numbered: int
    """Row numbers that are given so far; exchanged rows keep theirs."""
    held: frozenset[str] | None = None
    """Columns whose equal values lie in one partition each; none of them when all rows do."""
    waiting: list[tuple[Step, GroupTable]] = field(default_factory=list)
    """Aggregates whose group tables are still to be gathered, and what is to be gathered for each."""
    files: list[Part] = field(default_factory=list)
    """Of exchanged rows and converted tables."""
    side_files: list[Part] = field(default_factory=list)
    lost: frozenset[str] = frozenset()
    """Columns that were not exchanged, because nothing looks at them before an operation takes them away."""
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, context: Context, source: Source, first: int) -> Walk:
        id_column = context.job.data.id if context.job.data.id in source.kinds else None
        program = Program(context.store, context.backend, tuple(source.kinds.items()), id_column, ())
        return cls(context, source, source.partitions, program, program, first, first, source.rows, source.rows)

    def add(self, step: Step) -> None:
        """One more step of both programs."""
        if self.lost and isinstance(step.operation, (Drop, Select)):
            gone = self.lost.intersection(step.operation.columns)
            self.lost = self.lost - gone if isinstance(step.operation, Drop) else frozenset()
            there = tuple(name for name in step.operation.columns if name not in gone)
            step = replace(step, operation=step.operation.model_copy(update={"columns": there}))
        self.program = replace(self.program, steps=(*self.program.steps, step))
        self.replay = replace(self.replay, steps=(*self.replay.steps, step))
        self.held = held_after(self.held, step)

    def lies_together(self, keys: Sequence[str]) -> bool:
        """Whether all rows with equal keys are in one partition already."""
        return self.held is not None and self.held <= set(keys)

    def bring_together(self, keys: Sequence[str], index: int) -> None:
        """Rows with equal keys into one partition; nothing where they are already."""
        if self.lies_together(keys):
            return
        self.gather()
        keys = shared_keys(self.context.job.tables, index, keys)
        self._lose(index)
        width = width_of(self.program)
        count = bucket_count(self.rows, width) if keys else 1
        if not keys:
            refuse_too_many(self.rows, width, keys)
        if count == 1 and not any(partition[0].step is not None for partition in self.partitions):
            self.partitions = merged(self.partitions)
        else:
            buckets, files = exchange(self.context, self.program, self.partitions, keys, count, index, "rows")
            self._go_on_from(tuple(bucket for bucket in buckets if bucket), files, index)
        self.held = frozenset(keys)

    def _lose(self, index: int) -> None:
        """Takes away the columns that nothing looks at from an operation on: they need not be exchanged."""
        kept = still_used(self.program, self.context.job.tables, index)
        if kept is not None:
            self.lost |= set(self.program.output()).difference(kept.columns)
            self.program = only(self.program, kept, index)
            self.replay = replace(self.replay, steps=(*self.replay.steps, Step(index, kept)))

    def _go_on_from(self, partitions: Partitions, files: Iterable[Part], index: int) -> None:
        """Exchanged rows are what is left to be read; the program begins anew."""
        self.partitions = partitions
        self.files += files
        self.rows = sum(rows_of(partition) for partition in partitions)
        self.start = index
        self.program = exchanged(self.program)

    def join(self, step: Step, operation: Join, inspected: Inspected) -> None:
        """The other table goes to every worker when it is small, else rows of both are exchanged by their keys."""
        context, path = self.context, f"{operation.with_.path}"
        kinds = sides.kinds_of_side(operation, inspected)
        size, limit = sides.size_of(inspected, kinds), sides.broadcast_limit(context)
        remedy = " and kept with a model; aggregate or filter it first, or join it in a job without models."
        if not operation.on:
            remedy = "; aggregate or filter it first, or name columns in `on`, by which rows of both can be exchanged."
        if size > limit and not (self.context.job.keeps_no_tables and operation.on):
            raise RequestError(
                f"join with {path}: about {size / 2**30:.1f} GiB in memory, more than the {limit / 2**30:.2g} GiB that "
                f"is sent to every worker{remedy}"
            )
        partitions, made = sides.partitions_of(context, inspected, path, step.index)
        program = sides.program_of(context, operation, inspected)
        if size <= limit:
            self.add(self._with_side(step, sides.load(context, program, partitions)))
        else:
            self._join_by_exchange(replace(step, side_kinds=tuple(kinds.items())), operation, program, partitions)
        context.store.remove(*made)

    def _join_by_exchange(self, step: Step, operation: Join, program: Program, there: Partitions) -> None:
        self.gather()
        keys = shared_keys(self.context.job.tables, step.index, operation.on)
        self._lose(step.index)
        here = self.program, self.partitions
        matched, files = exchange_both(self.context, here, (program, there), keys, step.index, ("rows", "side"))
        if operation.how in ("left", "inner"):
            self._tell_repeats(step, keys_repeated(self.context, program, matched, step.index, operation.on))
        self._go_on_from(matched, files, step.index)
        self.held = frozenset(keys)
        self.add(replace(step, multiplies=operation.how == "left"))

    def _tell_repeats(self, step: Step, keys: int) -> None:
        """That a join makes more rows than there were."""
        assert isinstance(step.operation, Join)
        if keys:
            path = step.operation.with_.path
            self.warnings.append(f"{step.where}: {keys} keys occur more than once in {path}; rows multiply")

    def _with_side(self, step: Step, frame: pd.DataFrame) -> Step:
        """The step with the small table that it takes, written beside the rows."""
        path = f"{self.context.folder}/side-{step.index}.parquet"
        part = self.context.store.write_parquet(path, self.context.backend.table(frame))
        self.side_files.append(part)
        operation = step.operation
        twice = 0
        if isinstance(operation, Join) and operation.how in ("left", "inner"):
            twice = repeats(frame, operation.on)
            self._tell_repeats(step, twice)
        return replace(step, side=part.path, side_kinds=tuple(kinds_of(frame).items()), multiplies=twice > 0)

    def union(self, step: Step, operation: Union, inspected: Inspected) -> None:
        """The other table's rows come in at this step, as partitions of their own."""
        there = sides.kinds_of_side(operation, inspected)
        kinds = operation.kinds(self.program.output(), there)
        self.gather()
        partitions, files = sides.partitions_of(
            self.context, inspected, str(operation.with_.path), step.index, entering=True, offset=self.numbered
        )
        rows = sum(rows_of(partition) for partition in partitions)
        self.partitions += partitions
        self.rows += rows
        self.numbered += rows
        self.files += files
        self.add(replace(step, side_kinds=tuple(there.items()), kinds=tuple(kinds.items())))

    def group(self, step: Step, operation: Grouping) -> Walk:
        """A group table for the rows to take along, or in their place."""
        if operation.broadcast and self.context.job.keeps_no_tables:
            keys = keys_of_later(self.context.job.tables, step.index, operation.by)
            if keys:
                self.bring_together(keys, step.index)
            if self.lies_together(operation.by):
                self.add(step)
                return self
        table = self._group_table(step.index, operation)
        if operation.broadcast:
            empty = operation.finish(operation.partial(table.program.empty()))
            step = replace(step, side_kinds=tuple(kinds_of(empty).items()))
            self.waiting.append((step, replace(table, operation=operation)))
            self.add(step)
            return self
        (groups,) = group_tables(self.context, [table], self.partitions)
        self.context.store.remove(*self.files)
        walk = Walk.of(self.context, as_source(self.context, groups, step.where, step.index), step.index + 1)
        walk.warnings = self.warnings
        return walk

    def _group_table(self, index: int, operation: Grouping) -> GroupTable:
        complete = self.lies_together(operation.by)
        pruned = self.program.pruned(operation.gathers)
        if {step.index for step, _ in self.waiting} & {step.index for step in pruned.steps}:
            self.gather()
            pruned = self.program.pruned(operation.gathers)
        return GroupTable(operation, pruned, index, complete)

    def sample(self, step: Step, operation: Sample) -> None:
        """A sample of a given number: the bound of the hashes comes first."""
        self.gather()
        bound = sample_bound(self.context, self.program.pruned(()), self.partitions, operation)
        self.add(self._with_side(step, bound))

    def gather(self) -> None:
        """Gathers the group tables that are waited for, in one pass over the rows."""
        if not self.waiting:
            return
        tables = group_tables(self.context, [table for _, table in self.waiting], self.partitions)
        steps = (step for step, _ in self.waiting)
        done = {step.index: self._with_side(step, table) for step, table in zip(steps, tables, strict=True)}
        self.waiting.clear()
        self.program, self.replay = (
            replace(p, steps=tuple(done.get(s.index, s) for s in p.steps)) for p in (self.program, self.replay)
        )

    def prepared(self, table: tuple[Part, ...] | None) -> Prepared:
        """What the stages that follow need; of a job that only makes a table, the table."""
        source = self.source.model_copy(
            update={
                "kinds": dict(self.program.kinds),
                "partitions": self.partitions if table is None else (),
                "files": (*self.source.files, *self.files) if table is None else (),
            }
        )
        return Prepared(
            source=source,
            start=self.start,
            origin=dict(self.replay.kinds),
            first=self.first,
            steps=tuple(step.record() for step in self.replay.steps),
            sides=tuple(self.side_files),
            kinds=self.program.output(),
            table=table,
            warnings=tuple(self.warnings),
        )
