"""Stage `features`: fits the feature operations on the training rows, applies them, writes the table.

Fitting goes in rounds: every round is one pass that gathers the statistics of all operations
whose input columns are known; an operation on columns that another one is about to change
waits for the next round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Features, Part, Prepared, SplitRule
from treadle.engine.blocks import PROTECTED, Block
from treadle.engine.context import Context
from treadle.engine.encoders import Fitted, FittedTarget, Kind, Operation, Shelf, Training, apply, needs, to_matrix
from treadle.engine.job import Job
from treadle.engine.operation import OWN_COLUMNS, ROW_ID
from treadle.engine.rows import Rows, assign, split_keys
from treadle.engine.statistics import Request, gather, merge
from treadle.engine.store import Store
from treadle.engine.target import Class, TargetCounts, count_target, merge_targets, task_of
from treadle.errors import DataError, RequestError, listed

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.encoders.columns import Columns
    from treadle.engine.models.base import Task

REVISION = 2
KIND_OF: Mapping[str, Kind] = {
    "int": "number",
    "float": "number",
    "bool": "number",
    "text": "text",
    "timestamp": "timestamp",
}


def inputs_of(job: Job, kinds: Mapping[str, str]) -> dict[str, Kind]:
    """The columns that features are made of: all but the target, the id and the column that the split goes by.

    The split's column and text among the protected columns are inputs only if an operation names them.
    """
    named = {c for o in job.features if not isinstance(o.columns, str) for c in o.columns}
    kept_back = {getattr(job.split, "column", None)}
    kept_back |= {name for name in job.data.protected if KIND_OF[kinds[name]] in ("text", "timestamp")}
    never = {job.data.target, job.data.id, *OWN_COLUMNS}
    return {
        name: KIND_OF[kind]
        for name, kind in kinds.items()
        if name not in never and (name in named or name not in kept_back)
    }


def check(job: Job, kinds: Mapping[str, str]) -> list[str]:
    """Resolves the operations without data; returns the features as far as their names are known.

    Raises
    ------
    RequestError
        A column that is not there or of the wrong kind; text or time that nothing encodes.
    """
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
    """
    job, store, shelf = context.job, context.store, Shelf(context.store, context.folder)
    rows = Rows.of(context, prepared)
    rule = rule or whole(rows, job, prepared)
    inputs = inputs_of(job, prepared.kinds)
    fitted, kinds = fit(rows, job, rule, inputs, shelf)
    _all_numbers(kinds)
    names = tuple(kinds)
    _check_names(job, names)
    recipe = Recipe(job, rule, tuple(inputs), tuple(fitted), shelf)
    paths = [f"{context.folder}/part-{number:05d}.parquet" for number in range(len(rows.partitions))]
    if job.models:
        blocks = context.live["blocks"] = rows.map(make_block, recipe, names)
        tasks = [
            context.client.submit(write_block, block, path, store, names, job.data.target, rule, pure=False)
            for block, path in zip(blocks, paths, strict=True)
        ]
        del blocks
    else:
        tasks = rows.map(write_features, recipe, names, store, each=paths)
    parts = context.gather(tasks, rows=lambda part: part.rows)
    rows.release()
    kept = [o.at_prediction() if isinstance(o, FittedTarget) else o for o in fitted]
    return Features(
        table=tuple(parts),
        names=names,
        inputs=inputs,
        operations=tuple(kept),  # type: ignore[arg-type]
        level_files=shelf.parts(kept),
    )


def whole(rows: Rows, job: Job, prepared: Prepared) -> SplitRule:
    """The rule of a job without a split; one pass over the target, if anything looks at it."""
    task: Task = "regression"
    classes: tuple[Class, ...] = ()
    counted = TargetCounts({}, 0, 0)
    if job.looks_at_target:
        counted = rows.context.reduce(rows.map(count_target, job), merge_targets)
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


def fit(
    rows: Rows, job: Job, rule: SplitRule, inputs: Mapping[str, Kind], shelf: Shelf | None = None
) -> tuple[list[Fitted], dict[str, Kind]]:
    """The fitted operations in order, with many levels on the shelf if there is one; and the columns after the last."""
    fitted: list[Fitted] = []
    waiting: list[tuple[Operation, tuple[str, ...]]] = []
    kinds = dict(inputs)

    def gather_and_fit() -> None:
        nonlocal kinds
        requests = {
            (i, name): Request(name, statistic, getattr(operation, "folds", 0))
            for i, (operation, names) in enumerate(waiting)
            if (statistic := operation.statistic())
            for name in names
        }
        found: dict[Request, Any] = {}
        if requests:
            asked = tuple(dict.fromkeys(requests.values()))
            futures = rows.map(statistics_of, Recipe(job, rule, tuple(inputs), tuple(fitted), shelf), asked)
            found = rows.context.reduce(futures, merge)
        for i, (operation, names) in enumerate(waiting):
            made = operation.fit(names, {n: found[requests[i, n]] for n in names if (i, n) in requests})
            kinds = made.kinds(kinds)
            fitted.append(made if shelf is None else shelf.keep(made, len(fitted)))
        waiting.clear()

    for i, operation in enumerate(job.features):
        changing = {name for _, names in waiting for name in names}
        if waiting and (
            isinstance(operation.columns, str)
            or changing & set(operation.columns)
            or set(operation.columns) - set(kinds)
        ):
            gather_and_fit()
        names = operation.resolve(kinds, f"features.{i} ({operation.op})")
        waiting.append((operation, names))
    gather_and_fit()
    return fitted, kinds


@dataclass(frozen=True)
class Recipe:
    """How the prepared rows of a job become features, as far as its operations are fitted."""

    job: Job
    rule: SplitRule
    inputs: tuple[str, ...]
    operations: tuple[Fitted, ...] = ()
    shelf: Shelf | None = None
    """Where operations have their many levels."""

    def columns(self, frame: pd.DataFrame, training: np.ndarray, wanted: set[str] | None = None) -> Columns:
        """The columns after the operations, or the wanted ones; `training` says which rows are for that."""
        return apply(frame, self.opened, self.inputs, self.training(frame, training), wanted)

    @property
    def opened(self) -> Sequence[Fitted]:
        """The operations with all their levels."""
        return self.operations if self.shelf is None else self.shelf.opened(self.operations)

    def training(self, frame: pd.DataFrame, rows: np.ndarray) -> Training | None:
        """By what operations that look at the target are cross-fitted, if there are any; groups stay together."""
        if all(operation.statistic() != "targets" for operation in self.job.features):
            return None
        kind = "group" if self.rule.kind == "group" else "random"
        return Training(rows, split_keys(frame, self.job, kind))


def statistics_of(frame: pd.DataFrame, role: str, recipe: Recipe, requests: Sequence[Request]) -> dict[Request, Any]:
    """On a worker: the requested statistics of the training rows of one partition."""
    target, test = assign(frame, role, recipe.job, recipe.rule)
    wanted = {request.column for request in requests}
    used = ~test & ~(np.isnan(target) & bool(recipe.job.models))
    if not used.all():
        needed = needs(recipe.opened, wanted) | {ROW_ID, getattr(recipe.job.split, "column", "")}
        frame, target = frame[[name for name in frame if name in needed]][used], target[used]
    every = np.ones(len(frame), dtype=bool)
    columns = recipe.columns(frame, every, wanted)
    return gather(columns, requests, target, recipe.rule, recipe.training(frame, every))


def make_block(frame: pd.DataFrame, role: str, recipe: Recipe, names: Sequence[str]) -> Block:
    """On a worker: the features of one partition's rows that have a target."""
    target, test = assign(frame, role, recipe.job, recipe.rule)
    known = ~np.isnan(target)
    if not known.all():
        frame, target, test = frame[known], target[known], test[known]
    matrix = to_matrix(recipe.columns(frame, ~test), names, len(frame))
    protected = {name: pa.array(frame[name], from_pandas=True) for name in recipe.job.data.protected}
    return Block(_array(frame[ROW_ID]), test, target, matrix, protected)


def write_features(
    frame: pd.DataFrame, role: str, recipe: Recipe, names: Sequence[str], store: Store, path: str
) -> Part:
    """On a worker: one partition's rows of the table `features` of a job without models, the target as it is."""
    job, rule = recipe.job, recipe.rule
    _, test = assign(frame, role, job, rule)
    matrix = to_matrix(recipe.columns(frame, ~test), names, len(frame), order="F")
    fields: dict[str, Any] = {"id": _array(frame[ROW_ID])}
    if rule.kind != "none":
        fields["split"] = pa.array(np.where(test, "test", "train"), pa.string())
    if job.data.target is not None:
        fields[job.data.target] = _array(frame[job.data.target])
    fields.update({f"{PROTECTED}{name}": _array(frame[name]) for name in job.data.protected})
    table = pa.table({**fields, **{name: pa.array(matrix[:, i]) for i, name in enumerate(names)}})
    return store.write_parquet(path, table)


def _array(series: pd.Series) -> pa.Array:
    array = pa.array(series, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def write_block(block: Block, path: str, store: Store, names: Sequence[str], target: str, rule: SplitRule) -> Part:
    """On a worker: one file of the table `features`."""
    return store.write_parquet(path, block.table(names, target, rule))
