"""The target of a job: what its values say of the task, and what rules a column out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from treadle.engine.job import CLASSIFICATION_METRICS, MAX_CLASSES, NUMBERS_ARE_CLASSES_UP_TO, Job
from treadle.errors import DataError, RequestError, did_you_mean, listed

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.models.base import Task

Class = str | int | float | bool


@dataclass(frozen=True)
class TargetCounts:
    """What one partition, or several, say of the target."""

    values: dict[Class, int]
    """Rows by value; empty for floats, and where nobody looks at the target."""
    nulls: int
    rows: int


def count_target(frame: pd.DataFrame, role: str, job: Job) -> TargetCounts:
    """On a worker: of one partition."""
    if not job.looks_at_target:
        return TargetCounts({}, 0, len(frame))
    values = frame[job.data.target].dropna()
    if values.dtype.kind == "f" and np.isinf(values.to_numpy()).any():
        raise DataError(f"The target '{job.data.target}' has infinite values; filter them in tables.")
    counts: dict[Class, int] = {}
    if values.dtype.kind != "f":
        found = values.value_counts()
        counts = dict(zip(found.index.tolist(), found.tolist(), strict=True))
    return TargetCounts(counts, len(frame) - len(values), len(frame))


def merge_targets(partials: Sequence[TargetCounts]) -> TargetCounts:
    """Several parts as one; no order or grouping changes the outcome."""
    counts: dict[Class, int] = {}
    for partial in partials:
        for value, n in partial.values.items():
            counts[value] = counts.get(value, 0) + n
    return TargetCounts(counts, sum(p.nulls for p in partials), sum(p.rows for p in partials))


def check_target(job: Job, kind: str) -> Task | None:
    """Refuses a target or a metric that its column's kind rules out; the task as far as the kind tells it.

    Where there are classes, `binary` stands for several of them, too.
    """
    data, target = job.data, job.data.target
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


def task_of(
    job: Job, kind: str, found: TargetCounts
) -> tuple[Literal["binary", "multiclass", "regression"], tuple[Class, ...]]:
    """The task, and the classes in the order of their codes; without a meaning where nobody looks at the target."""
    data = job.data
    if found.rows == 0:
        raise DataError("No row is left after tables; look at the filters and inner joins there.")
    if not job.looks_at_target:
        return "regression", ()
    if found.nulls == found.rows:
        raise DataError(f"The target '{data.target}' is null in all {found.rows} rows; there is nothing to learn.")
    if kind == "float" or (data.task is None and _is_number(job, kind, found)) or data.task == "regression":
        return "regression", ()
    classes = sorted(found.values, key=lambda value: (isinstance(value, str), value))
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


def _is_number(job: Job, kind: str, found: TargetCounts) -> bool:
    asked_for_classes = job.data.positive_class is not None or job.metric in CLASSIFICATION_METRICS
    return kind == "int" and not asked_for_classes and len(found.values) > NUMBERS_ARE_CLASSES_UP_TO
