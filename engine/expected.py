"""What a job is expected to need of a worker's memory and of the disk: from footers, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.engine import sides
from treadle.engine.exact.params import trains_exactly
from treadle.engine.exchange import bucket_count, refuse_too_many, width_of
from treadle.engine.found import EXCHANGED
from treadle.engine.inputs import row_bytes
from treadle.engine.job import Job
from treadle.engine.job_inputs import Inputs
from treadle.engine.lookahead import held_after, keys_of_later, only, shared_keys, still_used
from treadle.engine.program import Program, Step
from treadle.engine.relational import Aggregate, Dedupe, Filter, Join, Pivot, Sample, TableOperation, Union
from treadle.engine.rows import HELD_SHARE
from treadle.engine.workers import PEAK_PARTITIONS, WORKER_OWN, Workers
from treadle.errors import DataError, RequestError

FEATURE_COPIES = 3
"""The float32 matrix exists as blocks, once more while XGBoost bins it, and as its bins."""
CONTINUED_COPIES = 5
"""Where an earlier model is continued, XGBoost also has the values, each with the number of its feature."""


@dataclass(frozen=True)
class Memory:
    """Estimated bytes."""

    partition: int
    bucket: int
    """Of the most rows that lie together in a task because of their keys, evenly spread; 0 where none do."""
    broadcast: int
    """Of small tables that every worker has."""
    rows: int
    features: int
    """Of the float32 matrix of a job with models."""
    exchanged: int
    """On disk at once, under the artifacts root: rows on their way to those with the same keys."""
    worker_peak: int
    worker_limit: int | None


def memory(
    job: Job, inputs: Inputs, programs: Sequence[Program], partitions: int, features: int, workers: Workers
) -> Memory:
    """What the workers need for a job of which the rows are known; `programs` are those of `etl.outlines`.

    Raises
    ------
    RequestError
        It does not fit, with what to change.
    """
    assert inputs.main.rows is not None
    tables = _Tables.of(job, inputs, programs, workers)
    rows = tables.read
    partition = -(-rows // partitions) * max(row_bytes(inputs.main.kinds), row_bytes(programs[-1].output()))
    total = tables.rows * tables.width
    matrix = tables.rows * features * 4 if job.models else 0
    of_features = _copies(job) * matrix // workers.count
    tasks = PEAK_PARTITIONS * workers.threads * max(partition, tables.bucket)
    needed = WORKER_OWN + tables.broadcast + tasks + of_features
    held = 0
    if workers.limit is not None:
        held = total // workers.count if total < HELD_SHARE * workers.count * workers.limit else 0
        if needed > workers.limit:
            raise RequestError(
                f"The job does not fit: a worker would need about {mib(needed)} ({rows} rows in {partitions} "
                f"partitions, {features} features), and may use {mib(workers.limit)}; "
                f"{_remedy(tables, partition, partitions, of_features, workers)}, or raise cluster.memory."
            )
    # Digests are gone before rows are exchanged.
    digests = rows * row_bytes(EXCHANGED) if job.data.duplicates != "keep" else 0
    exchanged = max(tables.exchanged, digests)
    return Memory(partition, tables.bucket, tables.broadcast, total, matrix, exchanged, needed + held, workers.limit)


def _copies(job: Job) -> int:
    """How many times the matrix of features exists at once."""
    if any(model.continue_from is not None for model in job.listed_models):
        return CONTINUED_COPIES
    # What is solved from sums over rows goes over the blocks, and copies none.
    exact = job.compared is None and all(trains_exactly(model) for model in job.listed_models)
    return 1 if exact else FEATURE_COPIES


def _remedy(tables: _Tables, partition: int, partitions: int, of_features: int, workers: Workers) -> str:
    assert workers.limit is not None
    if WORKER_OWN + tables.broadcast + of_features > workers.limit:
        return "use more workers or fewer features (select, drop)"
    if tables.bucket > partition:
        fewer = "set cluster.threads to 1" if workers.threads > 1 else "name more columns in `by`"
        return f"{mib(tables.bucket)} of rows must lie together for {tables.where}: {fewer}"
    return f"leave data.partitions out, or set it to {partitions * 4} or more"


def mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


@dataclass
class _Tables:
    """The operations, walked over as the stage does it, with no rows."""

    workers: Workers
    read: int
    """Rows of the input."""
    rows: int
    """Rows there are at most; joins with several matches may make more."""
    width: int
    """Bytes of the widest row so far."""
    exact: bool = True
    """Whether nothing before may have left out rows."""
    held: frozenset[str] | None = None
    bucket: int = 0
    where: str = ""
    """The operation that `bucket` is of."""
    broadcast: int = 0
    exchanged: int = 0

    @classmethod
    def of(cls, job: Job, inputs: Inputs, programs: Sequence[Program], workers: Workers) -> _Tables:
        read = (inputs.main.rows or 0) + ((inputs.test.rows or 0) if inputs.test is not None else 0)
        tables = cls(workers, read, read, row_bytes(inputs.main.kinds))
        for index, (given, program) in enumerate(zip(job.tables, programs[:-1], strict=True)):
            operation = program.resolved(given)
            step = Step(index, operation)
            keys = operation.together
            if isinstance(operation, (Aggregate, Pivot)) and operation.broadcast and job.keeps_no_tables:
                keys = keys_of_later(job.tables, index, operation.by) or None
            if isinstance(operation, Union):
                there = inputs.sides[index]
                kinds = sides.kinds_of_side(operation, there)
                tables.rows += there.rows or sides.size_of(there, kinds) // row_bytes(kinds)
            elif isinstance(operation, Join):
                size = sides.size_of(inputs.sides[index], sides.kinds_of_side(operation, inputs.sides[index]))
                if size <= sides.most_broadcast(workers.limit):
                    tables.broadcast += size
                else:
                    tables.bring_together(step, job.tables, operation.on, program, size)
                step = Step(
                    index, operation, side_kinds=tuple(sides.kinds_of_side(operation, inputs.sides[index]).items())
                )
            elif keys is not None and not (tables.held is not None and tables.held <= set(keys)):
                tables.bring_together(step, job.tables, keys, program)
            if isinstance(operation, (Aggregate, Pivot)) and not operation.broadcast:
                tables.held = None
            else:
                tables.held = held_after(tables.held, step)
            tables.exact &= not isinstance(operation, (Filter, Dedupe, Sample, Aggregate, Pivot)) and (
                not isinstance(operation, Join) or not operation.decides_rows
            )
            tables.width = max(tables.width, width_of(programs[index + 1]))
        return tables

    def bring_together(
        self, step: Step, operations: Sequence[TableOperation], keys: Sequence[str], program: Program, size: int = 0
    ) -> None:
        """Rows with equal keys into one task; `size` are bytes of another table's rows, exchanged along."""
        keys = shared_keys(operations, step.index, keys)
        kept = still_used(program, operations, step.index)
        width = width_of(program if kept is None else only(program, kept, step.index))
        together = self.rows * width
        count = max(bucket_count(self.rows, width), bucket_count(1, size)) if keys else 1
        if not keys and self.exact:
            try:
                refuse_too_many(self.rows, width, keys)
            except DataError as error:
                raise RequestError(f"{step.where}: {error}") from error
        if count > 1:
            self.exchanged += together + size
        if (together + size) // count > self.bucket:
            self.bucket, self.where = (together + size) // count, step.where
        self.held = frozenset(keys)
