"""Stage `features`: fits the feature operations on the training rows, applies them, writes the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Features, Prepared, SplitRule
from treadle.engine.blocks import PROTECTED, WEIGHT, Block
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.encoders import FittedTarget, Kind, Shelf, to_matrix
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.recipe import Recipe, arrow_array, fit, inputs_of, make_block
from treadle.engine.rows import Rows, assign
from treadle.engine.store import Store
from treadle.engine.target import Class, TargetCounts, count_target, merge_targets, task_of
from treadle.engine.weights import check_kind, check_weights, count_weights, merge_weights
from treadle.errors import DataError, RequestError, listed

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.models.base import Task

REVISION = 2


def check(job: Job, kinds: Mapping[str, str]) -> list[str]:
    """Resolves the operations without data; returns the features as far as their names are known.

    Raises
    ------
    RequestError
        A column that is not there or of the wrong kind, that of weights among them; text or time that nothing encodes.
    """
    check_kind(job, kinds)
    current = inputs_of(job, kinds)
    for i, operation in enumerate(job.features):
        where = f"features.{i} ({operation.op})"
        if operation.statistic() == "targets" and job.data.target is None:
            raise RequestError(f"{where}: it needs a target; name the column in data.target.")
        current = operation.outline(operation.resolve(current, where)).kinds(current)
    _all_numbers(current)
    _check_names(job, list(current))
    return list(current)


def _all_numbers(kinds: Mapping[str, Kind]) -> None:
    left = {name: kind for name, kind in kinds.items() if kind in ("text", "timestamp")}
    if left:
        text = [name for name, kind in left.items() if kind == "text"]
        remedy = (
            f"{{op: one_hot, columns: [{listed(text)}]}} or ordinal"
            if text
            else f"{{op: date_parts, columns: [{listed(left)}]}}"
        )
        raise RequestError(
            f"Features are numbers, and no feature operation encodes {listed(f'{n} ({k})' for n, k in left.items())}; "
            f"add {remedy}, or drop the columns in tables."
        )
    if not kinds:
        raise RequestError("No column is left to make features of; look at select and drop in tables.")


def _check_names(job: Job, names: Sequence[str]) -> None:
    """Refuses names that the tables use themselves, and pairs that a Delta table takes for one."""
    target = job.data.target or ""
    if target.casefold() in ("id", "split"):
        raise RequestError(
            f"The target is called '{target}', a name that the table `features` uses itself; rename it in tables."
        )
    protected = [f"{PROTECTED}{name}".casefold() for name in job.data.protected]
    own = {"id", "split", "bias", "class", target.casefold(), *protected}
    own |= set() if job.data.weight is None else {f"{WEIGHT}{job.data.weight}".casefold()}
    seen: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in own:
            raise RequestError(
                f"A feature is called '{name}', a name that the tables use themselves; rename the column in tables."
            )
        if folded in seen:
            raise DataError(
                f"Features '{seen[folded]}' and '{name}' differ in case only, and a table takes their names for one; "
                "make the values alike with derive and lower(...), or rename a column in tables."
            )
        seen[folded] = name


def run(context: Context, prepared: Prepared, rule: SplitRule | None) -> Features:
    """Fits, applies and writes; blocks stay on the workers for the stages that follow, if there are models.

    Without a rule, all rows are for training.

    Raises
    ------
    DataError
        Training rows have no weight, or names of features are the same but for case.
    RequestError
        As `check`, where levels of the data decide it.
    """
    job, store, shelf = context.job, context.store, Shelf(context.store, context.folder)
    rows = Rows.of(context, prepared)
    rule = rule or whole(rows, job, prepared)
    inputs = inputs_of(job, prepared.kinds)
    fitted, kinds = fit(rows, job, rule, inputs, shelf, context.backend)
    _all_numbers(kinds)
    names = tuple(kinds)
    _check_names(job, names)
    recipe = Recipe(job, rule, tuple(inputs), tuple(fitted), shelf, context.backend)
    said: list[str] = []
    paths = [f"{context.folder}/part-{number:05d}.parquet" for number in range(len(rows.partitions))]
    if job.models:
        blocks = context.live["blocks"] = rows.map(make_block, recipe, names)
        weight = job.data.weight
        counted = [] if weight is None else context.submit_like(count_weights, blocks)
        tasks = [
            context.client.submit(write_block, block, path, store, names, job.data.target, rule, weight, pure=False)
            for block, path in zip(blocks, paths, strict=True)
        ]
        del blocks
        if weight is not None:
            said = check_weights(merge_weights(context.gather(counted)), weight)
    else:
        tasks = rows.map(write_features, recipe, names, store, each=paths)
    parts = context.gather(tasks, rows=lambda part: part.rows)
    if job.compared is None:
        rows.release()
    kept = [o.at_prediction() if isinstance(o, FittedTarget) else o for o in fitted]
    return Features(
        table=tuple(parts),
        names=names,
        inputs=inputs,
        operations=tuple(kept),  # type: ignore[arg-type]
        level_files=shelf.parts(kept),
        warnings=tuple(said),
    )


def whole(rows: Rows, job: Job, prepared: Prepared) -> SplitRule:
    """The rule of a job without a split; one pass over the target, if anything looks at it."""
    task: Task = "regression"
    classes: tuple[Class, ...] = ()
    counted = TargetCounts({}, 0, 0)
    if job.looks_at_target:
        counted = rows.reduce(count_target, merge_targets, job)
        task, classes = task_of(job, prepared.kinds[job.data.target or ""], counted)
    return SplitRule(
        kind="none",
        seed=job.seed,
        column=None,
        bounds=(),
        task=task,
        classes=classes,
        train_rows=counted.rows - counted.nulls,
        test_rows=0,
        dropped_rows=counted.nulls,
        has_target=job.looks_at_target,
    )


def write_features(
    frame: pd.DataFrame, role: str, recipe: Recipe, names: Sequence[str], store: Store, path: str
) -> Part:
    """On a worker: one partition's rows of the table `features` of a job without models, the target as it is."""
    job, rule = recipe.job, recipe.rule
    _, test = assign(frame, role, job, rule)
    matrix = to_matrix(recipe.columns(frame, ~test), names, len(frame), order="F")
    fields: dict[str, Any] = {"id": arrow_array(frame[ROW_ID])}
    if rule.kind != "none":
        fields["split"] = pa.array(np.where(test, "test", "train"), pa.string())
    if job.data.target is not None:
        fields[job.data.target] = arrow_array(frame[job.data.target])
    fields.update({f"{PROTECTED}{name}": arrow_array(frame[name]) for name in job.data.protected})
    if (weight := job.data.weight) is not None:
        fields[f"{WEIGHT}{weight}"] = arrow_array(frame[weight])
    table = pa.table({**fields, **{name: pa.array(matrix[:, i]) for i, name in enumerate(names)}})
    return store.write_parquet(path, table)


def write_block(
    block: Block, path: str, store: Store, names: Sequence[str], target: str, rule: SplitRule, weight: str | None
) -> Part:
    """On a worker: one file of the table `features`."""
    return store.write_parquet(path, block.table(names, target, rule, weight))
