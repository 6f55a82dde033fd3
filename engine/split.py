"""Stage `split`: what the target is, and which rows are for the test.

A row's side follows from its id (or group, or time) and from thresholds that are gathered
here, so that no partitioning changes it and nothing has to be stored a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from treadle.engine.artifacts import Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import CLASSIFICATION_METRICS, MAX_CLASSES, NUMBERS_ARE_CLASSES_UP_TO, Job
from treadle.engine.models.base import Task
from treadle.engine.rows import Rows, split_keys
from treadle.errors import DataError, RequestError, did_you_mean, listed
from treadle.kernels.sketch import QuantileSketch, merge_all, sketch_keys

if TYPE_CHECKING:
    import pandas as pd

REVISION = 1

Class = str | int | float | bool
SplitKind = Literal["random", "stratified", "time", "group", "path"]


@dataclass(frozen=True)
class Partial:
    """What one partition, or several, say of the target: rows by value, and the split's keys."""

    counts: dict[Class, int]
    """Rows by value of the target; empty for floats."""
    keys: dict[Class | None, QuantileSketch]
    """Split keys of all rows (None), and of each class while there are at most `MAX_CLASSES`."""
    nulls: int
    rows: int
    test_rows: int


def run(context: Context, prepared: Prepared) -> SplitRule:
    """One pass over the target and the split's keys."""
    job = context.job
    target_kind = prepared.kinds[job.data.target or ""]
    kind = kind_of(job, target_kind)
    futures = Rows.of(context, prepared).map(partial_of, job, kind)
    found: Partial = context.reduce(futures, merge)
    task, classes = _task(job, target_kind, found)
    if kind == "stratified" and task == "regression":
        kind = "random"
    job.metric_for(task)
    bounds, test_rows = _bounds(job, kind, classes, found)
    rows = found.rows - found.nulls
    if test_rows in (0, rows):
        raise DataError(
            f"split: kind '{kind}' puts {test_rows} of {rows} rows into the test set; "
            "both sides need rows, so choose another test_size or kind."
        )
    warnings = []
    if found.nulls:
        warnings.append(f"{found.nulls} rows have no target and are left out")
    return SplitRule(
        kind=kind,
        seed=job.seed,
        column=getattr(job.split, "column", None),
        bounds=bounds,
        task=task,
        classes=classes,
        train_rows=rows - test_rows,
        test_rows=test_rows,
        dropped_rows=found.nulls,
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
    data, target = job.data, job.data.target
    kind = kinds[target or ""]
    if job.split is not None and job.split.kind == "time" and kinds[job.split.column] in ("text", "bool"):
        raise RequestError(
            f"split: column '{job.split.column}' is {kinds[job.split.column]}; kind: time orders the rows by a "
            "timestamp or a number."
        )
    if kind == "timestamp":
        raise RequestError(
            f"The target '{target}' is timestamp; models predict classes or numbers, so derive one from it in tables."
        )
    if data.task == "regression" and kind not in ("int", "float"):
        raise RequestError(f"The target '{target}' is {kind}; task: regression needs numbers.")
    if kind == "float":
        asked = {
            "task: classification": data.task == "classification",
            "positive_class": data.positive_class is not None,
            f"metric: {job.metric}": job.metric in CLASSIFICATION_METRICS,
        }
        for name in [name for name, is_asked in asked.items() if is_asked]:
            raise RequestError(
                f"The target '{target}' is float, and {name} is for classes, which are text, booleans or whole "
                f"numbers; add {{op: cast, columns: {{{target}: int}}}} to tables."
            )
    task: Task | None = None
    if kind == "float" or data.task == "regression":
        task = "regression"
    elif kind in ("text", "bool") or data.task == "classification":
        task = "binary"
    if task is not None:
        job.metric_for(task)
    return task


def kind_of(job: Job, target_kind: str) -> SplitKind:
    """The kind of split asked for; stratified for what may be classes when the spec does not say."""
    if job.split is not None:
        return job.split.kind
    return "random" if target_kind == "float" or job.data.task == "regression" else "stratified"


def partial_of(frame: pd.DataFrame, role: str, job: Job, kind: str) -> Partial:
    """On a worker: one partition's part."""
    target = frame[job.data.target]
    known = frame[target.notna()]
    values = known[job.data.target]
    counts: dict[Class, int] = {}
    if values.dtype.kind == "f" and np.isinf(values.to_numpy()).any():
        raise DataError(f"The target '{job.data.target}' has infinite values; filter them in tables.")
    if values.dtype.kind != "f":
        found = values.value_counts()
        counts = dict(zip(found.index.tolist(), found.tolist(), strict=True))
    keys: dict[Class | None, QuantileSketch] = {}
    if kind != "path":
        row_keys = split_keys(known, job, kind)
        keys[None] = sketch_keys(row_keys)
        if kind == "stratified" and len(counts) <= MAX_CLASSES:
            for value in counts:
                keys[value] = sketch_keys(row_keys[(values == value).to_numpy(bool)])
    test_rows = len(known) if role == "test" else 0
    return Partial(counts, keys, int(target.isna().sum()), len(frame), test_rows)


def merge(partials: list[Partial]) -> Partial:
    """Several parts as one; no order or grouping changes the outcome."""
    counts: dict[Class, int] = {}
    for partial in partials:
        for value, n in partial.counts.items():
            counts[value] = counts.get(value, 0) + n
    names = {name for partial in partials for name in partial.keys if name is None or len(counts) <= MAX_CLASSES}
    keys = {name: merge_all([p.keys[name] for p in partials if name in p.keys]) for name in names}
    return Partial(
        counts,
        keys,
        sum(p.nulls for p in partials),
        sum(p.rows for p in partials),
        sum(p.test_rows for p in partials),
    )


def _task(
    job: Job, kind: str, found: Partial
) -> tuple[Literal["binary", "multiclass", "regression"], tuple[Class, ...]]:
    """The task, and the classes in the order of their codes."""
    data = job.data
    if found.rows == 0:
        raise DataError("No row is left after tables; look at the filters and inner joins there.")
    if found.nulls == found.rows:
        raise DataError(f"The target '{data.target}' is null in all {found.rows} rows; there is nothing to learn.")
    if kind == "float" or (data.task is None and _is_number(job, kind, found)) or data.task == "regression":
        return "regression", ()
    classes = sorted(found.counts, key=lambda value: (isinstance(value, str), value))
    if len(classes) < 2:
        raise DataError(
            f"The target '{data.target}' has one class only, {classes[0]!r}; a model needs two. "
            "Look at the filters in tables."
        )
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"The target '{data.target}' has {len(classes)} classes, more than {MAX_CLASSES}; "
            "set data.task: regression for a number, or group the classes with derive."
        )
    folded = {str(value).casefold(): value for value in classes}
    if len(folded) < len(classes) and len(classes) > 2:
        other = next(value for value in classes if folded[str(value).casefold()] != value)
        raise DataError(
            f"Classes {other!r} and {folded[str(other).casefold()]!r} of '{data.target}' differ in case only, and name "
            "columns of the table `predictions`; make them alike with derive and lower(...)."
        )
    if data.positive_class is None:
        return ("binary" if len(classes) == 2 else "multiclass"), tuple(classes)
    named = {str(value): value for value in classes}
    positive = named.get(str(data.positive_class))
    if positive is None:
        raise DataError(
            f"data.positive_class: {data.positive_class!r} is no value of '{data.target}'. "
            f"Values: [{listed(map(repr, classes))}].{did_you_mean(str(data.positive_class), named)}"
        )
    if len(classes) > 2:
        raise DataError(
            f"data.positive_class is for two classes, and '{data.target}' has {len(classes)}: "
            f"[{listed(map(repr, classes))}]."
        )
    classes = [value for value in classes if value != positive] + [positive]
    return "binary", tuple(classes)


def _is_number(job: Job, kind: str, found: Partial) -> bool:
    asked_for_classes = job.data.positive_class is not None or job.metric in CLASSIFICATION_METRICS
    return kind == "int" and not asked_for_classes and len(found.counts) > NUMBERS_ARE_CLASSES_UP_TO


def _bounds(job: Job, kind: str, classes: tuple[Class, ...], found: Partial) -> tuple[tuple[int, ...], int]:
    """Thresholds of the keys, and the number of test rows that they give."""
    if kind == "path":
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
