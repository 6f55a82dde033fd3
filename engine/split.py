"""Stage `split`: what the target is, and which rows are for the test.

A row's side follows from its id (or group, or time) and from thresholds that are gathered
here, so that no partitioning changes it and nothing has to be stored a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from treadle.engine.artifacts import Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import MAX_CLASSES, Job
from treadle.engine.models.base import Task
from treadle.engine.rows import Rows, row_keys
from treadle.engine.target import (
    Class,
    TargetCounts,
    check_target,
    count_target,
    merge_targets,
    task_of,
)
from treadle.errors import DataError, RequestError
from treadle.kernels.sketch import QuantileSketch, merge_all, sketch_keys

if TYPE_CHECKING:
    import pandas as pd

REVISION = 1
SplitKind = Literal["random", "stratified", "time", "group", "path", "folds"]


@dataclass(frozen=True)
class Partial:
    """What one partition, or several, say of the target and of the split's keys."""

    target: TargetCounts
    keys: dict[Class | None, QuantileSketch]
    """Split keys of all rows (None), and of each class while there are at most `MAX_CLASSES`."""
    test_rows: int


def run(context: Context, prepared: Prepared) -> SplitRule:
    """One pass over the target and the split's keys."""
    job = context.job
    target_kind = prepared.kinds[job.data.target] if job.data.target is not None else ""
    kind = kind_of(job, target_kind)
    found: Partial = Rows.of(context, prepared).reduce(partial_of, merge, job, kind)
    task, classes = task_of(job, target_kind, found.target)
    if kind == "stratified" and task == "regression":
        kind = "random"
    if job.looks_at_target:
        job.metric_for(task)
    bounds, test_rows = _bounds(job, kind, classes, found)
    nulls = found.target.nulls
    rows = found.target.rows - nulls
    if test_rows == rows or (test_rows == 0 and kind != "folds"):
        raise DataError(
            f"split: kind '{kind}' puts {test_rows} of {rows} rows into the test set; "
            "both sides need rows, so choose another test_size or kind."
        )
    warnings = []
    if test_rows == 0:
        warnings.append("every row has a fold, so that there are no test rows beside the folds")
    if nulls and job.models:
        warnings.append(f"{nulls} rows have no target and are left out")
    return SplitRule(
        kind=kind,
        seed=job.seed,
        column=getattr(job.split, "column", None),
        bounds=bounds,
        task=task,
        classes=classes,
        train_rows=rows - test_rows,
        test_rows=test_rows,
        dropped_rows=nulls,
        has_target=job.looks_at_target,
        warnings=tuple(warnings),
    )


def check(job: Job, kinds: Mapping[str, str]) -> Task | None:
    """Refuses a target, a metric or a split that its column's type rules out; the task as far as types tell it.

    Where there are classes, `binary` stands for several of them, too.

    Raises
    ------
    RequestError
        The first that does not fit.
    """
    by_time = [
        ("split", "kind", job.split.column if job.split is not None and job.split.kind == "time" else None),
        ("compare", "by", job.compare.column if job.compare is not None and job.compare.by == "time" else None),
    ]
    for section, key, column in by_time:
        if column is not None and kinds[column] in ("text", "bool"):
            raise RequestError(
                f"{section}: column '{column}' is {kinds[column]}; {key}: time orders the rows by a timestamp or a "
                "number."
            )
    return check_target(job, kinds[job.data.target or ""]) if job.looks_at_target else None


def kind_of(job: Job, target_kind: str) -> SplitKind:
    """The kind of split asked for; stratified for what may be classes when the spec does not say."""
    if job.split is not None:
        return job.split.kind
    return "random" if target_kind == "float" or job.data.task == "regression" else "stratified"


def partial_of(frame: pd.DataFrame, role: str, job: Job, kind: str) -> Partial:
    """On a worker: one partition's part."""
    counted = count_target(frame, role, job)
    known, values = frame, None
    if job.looks_at_target:
        known = frame[frame[job.data.target].notna()]
        values = known[job.data.target]
    keys: dict[Class | None, QuantileSketch] = {}
    if kind not in ("path", "folds"):
        of_rows = row_keys(known, kind, getattr(job.split, "column", None), job.seed)
        keys[None] = sketch_keys(of_rows)
        if kind == "stratified" and values is not None and len(counted.values) <= MAX_CLASSES:
            for value in counted.values:
                keys[value] = sketch_keys(of_rows[(values == value).to_numpy(bool)])
    test_rows = len(known) if role == "test" else 0
    if kind == "folds":
        test_rows = int(known[job.split.column].isna().sum())  # type: ignore[union-attr]
    return Partial(counted, keys, test_rows)


def merge(partials: list[Partial]) -> Partial:
    """Several parts as one; no order or grouping changes the outcome."""
    target = merge_targets([partial.target for partial in partials])
    few = len(target.values) <= MAX_CLASSES
    names = {name for partial in partials for name in partial.keys if name is None or few}
    keys = {name: merge_all([p.keys[name] for p in partials if name in p.keys]) for name in names}
    return Partial(target, keys, sum(p.test_rows for p in partials))


def _bounds(job: Job, kind: str, classes: tuple[Class, ...], found: Partial) -> tuple[tuple[int, ...], int]:
    """Thresholds of the keys, and the number of test rows that they give."""
    if kind in ("path", "folds"):
        return (), found.test_rows
    share = getattr(job.split, "test_size", 0.25)
    if kind == "time":
        sketch = found.keys[None]
        bound = sketch.rank_key(sketch.total - _test_rows(share, sketch.total) + 1)
        return (bound,), sketch.total - sketch.count_below(bound)
    sketches = [found.keys[c] for c in classes] if kind == "stratified" else [found.keys[None]]
    bounds, test_rows = [], 0
    for sketch in sketches:
        bound = sketch.rank_key(min(_test_rows(share, sketch.total) + 1, sketch.total))
        bounds.append(bound)
        test_rows += sketch.count_below(bound)
    return tuple(bounds), test_rows


def _test_rows(share: float, rows: int) -> int:
    return min(max(round(share * rows), 1), rows)
