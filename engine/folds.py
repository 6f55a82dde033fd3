"""Stage `folds`: which fold every training row is in, to compare models by.

A row's fold follows from its id (or group, or time) and from thresholds that are gathered here, so that no
partitioning changes it. Folds differ by one row at most, and those of classes by one row a class, but for rows
whose keys are equal: they stay together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.artifacts import Folds, Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import MAX_FOLDS, Compare, Job
from treadle.engine.rows import Rows, assign, folds_of, row_keys
from treadle.errors import DataError
from treadle.kernels.sketch import QuantileSketch, merge_all, sketch_keys

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.target import Class

REVISION = 1
SEED = 1
"""Added to the job's: rows that fall to the test together do not fall into one fold together."""


@dataclass(frozen=True)
class Partial:
    """What one partition, or several, say of the training rows."""

    keys: tuple[QuantileSketch, ...]
    """Of all, or by class."""
    values: dict[Class, int]
    """Rows by fold, where folds are given."""


def run(context: Context, prepared: Prepared, rule: SplitRule) -> Folds:
    """One pass over the target and the keys of the training rows; two, to count the rows of each fold.

    Raises
    ------
    DataError
        There are more folds than rows, groups or times for them, or fewer than two.
    """
    job = context.job
    compare = job.compared
    assert compare is not None
    draft = _draft(job, compare, rule)
    rows = Rows.of(context, prepared)
    found: Partial = rows.reduce(partial_of, merge, job, rule, draft)
    if draft.kind == "given":
        folds = draft.model_copy(update={"values": _values(found.values, rule)})
    else:
        stretches = compare.folds + (draft.kind == "time")
        folds = draft.model_copy(update={"bounds": tuple(_bounds(sketch, stretches) for sketch in found.keys)})
    count = len(folds.values) or compare.folds
    counts: np.ndarray = rows.reduce(rows_of_folds, sum, job, rule, folds, count)
    if not counts.all():
        what = f"groups of '{folds.column}'" if folds.kind == "group" else "distinct rows"
        what = f"times in '{folds.column}'" if folds.kind == "time" else what
        raise DataError(
            f"compare: fold {int(np.argmin(counts)) + 1} of {count} has no rows; there are too few {what} for so many "
            "folds, so set compare.folds lower."
        )
    warnings = []
    if folds.kind == "stratified":
        warnings = [
            f"class {name!r} has {sketch.total} training rows, fewer than there are folds: some test none of it"
            for name, sketch in zip(rule.classes, found.keys, strict=True)
            if sketch.total < count
        ]
    return folds.model_copy(update={"rows": tuple(counts.tolist()), "warnings": tuple(warnings)})


def _draft(job: Job, compare: Compare, rule: SplitRule) -> Folds:
    """The folds without what the rows say."""
    if rule.kind == "folds":
        return Folds(kind="given", seed=job.seed, column=rule.column, rows=())
    kind, column = compare.by, compare.column
    if kind is None:
        kind = rule.kind if rule.kind in ("group", "time") else "stratified"
    if kind in ("group", "time"):
        column = column or rule.column
    if kind == "stratified" and rule.task == "regression":
        kind = "random"
    return Folds(kind=kind, seed=job.seed + SEED, column=column, rows=())


def partial_of(frame: pd.DataFrame, role: str, job: Job, rule: SplitRule, folds: Folds) -> Partial:
    """On a worker: one partition's part."""
    target, test = assign(frame, role, job, rule)
    training = ~test & ~np.isnan(target)
    if folds.kind == "given":
        counts = frame[folds.column][training].value_counts()
        return Partial((), dict(zip(counts.index.tolist(), counts.tolist(), strict=True)))
    keys = row_keys(frame[training], folds.kind, folds.column, folds.seed)
    if folds.kind != "stratified":
        return Partial((sketch_keys(keys),), {})
    codes = target[training]
    return Partial(tuple(sketch_keys(keys[codes == code]) for code in range(len(rule.classes))), {})


def merge(partials: list[Partial]) -> Partial:
    """Several parts as one; no order or grouping changes the outcome."""
    values: dict[Class, int] = {}
    for partial in partials:
        for value, rows in partial.values.items():
            values[value] = values.get(value, 0) + rows
    sketches = zip(*(partial.keys for partial in partials), strict=True)
    return Partial(tuple(merge_all(list(parts)) for parts in sketches), values)


def rows_of_folds(frame: pd.DataFrame, role: str, job: Job, rule: SplitRule, folds: Folds, count: int) -> np.ndarray:
    """On a worker: training rows in each fold, int64 (count,)."""
    target, test = assign(frame, role, job, rule)
    found = folds_of(frame, target, folds)[~test & ~np.isnan(target)]
    return np.bincount(found[found >= 0], minlength=count)


def _bounds(sketch: QuantileSketch, stretches: int) -> tuple[int, ...]:
    """Keys with which the stretches after the first begin, each with about as many rows."""
    if sketch.total == 0:
        return (0,) * (stretches - 1)
    ranks = [sketch.total * i // stretches + 1 for i in range(1, stretches)]
    return tuple(sketch.rank_key(min(rank, sketch.total)) for rank in ranks)


def _values(found: dict[Class, int], rule: SplitRule) -> tuple[Class, ...]:
    """The folds that are given, in order."""
    if not 2 <= len(found) <= MAX_FOLDS:
        raise DataError(
            f"split: column '{rule.column}' names {len(found)} folds of the training rows; there are 2 to {MAX_FOLDS}. "
            "Each distinct value is a fold, and rows without one are for the test."
        )
    return tuple(sorted(found, key=lambda value: (isinstance(value, str), value)))
