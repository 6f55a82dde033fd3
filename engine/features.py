"""Stage `features`: fits the feature operations on the training rows, applies them, writes the table.

Fitting goes in rounds: every round is one pass that gathers the statistics of all operations
whose input columns are known; an operation on columns that another one is about to change
waits for the next round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Features, Part, Prepared, SplitRule
from treadle.engine.blocks import PROTECTED, Block
from treadle.engine.context import Context
from treadle.engine.encoders import Fitted, FittedTarget, Kind, Operation, Shelf, apply, to_matrix
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.rows import Rows, assign, sample_of
from treadle.engine.statistics import Request, gather, merge
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError, listed

if TYPE_CHECKING:
    import pandas as pd

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
    never = {job.data.target, job.data.id, ROW_ID}
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
            f"Models need numbers, and no feature operation encodes {listed(f'{n} ({k})' for n, k in left.items())}; "
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


def run(context: Context, prepared: Prepared, rule: SplitRule) -> Features:
    """Fits, applies and writes; leaves the blocks on the workers for the stages that follow."""
    job, store, shelf = context.job, context.store, Shelf(context.store, context.folder)
    rows = Rows.of(context, prepared)
    inputs = inputs_of(job, prepared.kinds)
    fitted, kinds = fit(rows, job, rule, inputs, shelf)
    _all_numbers(kinds)
    names = tuple(kinds)
    _check_names(job, names)
    blocks = rows.map(make_block, job, rule, fitted, tuple(inputs), names, shelf)
    tasks = [
        context.client.submit(
            write_block,
            block,
            f"{context.folder}/part-{i:05d}.parquet",
            store,
            names,
            job.data.target,
            rule,
            pure=False,
        )
        for i, block in enumerate(blocks)
    ]
    parts = context.gather(tasks, rows=lambda part: part.rows)
    rows.release()
    context.live["blocks"] = blocks
    kept = [o.at_prediction() if isinstance(o, FittedTarget) else o for o in fitted]
    return Features(
        table=tuple(parts),
        names=names,
        inputs=inputs,
        operations=tuple(kept),  # type: ignore[arg-type]
        level_files=shelf.parts(kept),
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
            futures = rows.map(statistics_of, job, rule, tuple(fitted), tuple(inputs), asked, shelf)
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


def statistics_of(
    frame: pd.DataFrame,
    role: str,
    job: Job,
    rule: SplitRule,
    fitted: Sequence[Fitted],
    inputs: Sequence[str],
    requests: Sequence[Request],
    shelf: Shelf | None = None,
) -> dict[Request, Any]:
    """On a worker: the requested statistics of the training rows of one partition."""
    target, test = assign(frame, role, job, rule)
    training = ~test & ~np.isnan(target)
    if not training.all():
        frame, target = frame[training], target[training]
    sample = sample_of(frame, np.ones(len(frame), dtype=bool), job, rule)
    wanted = {request.column for request in requests}
    columns = apply(frame, fitted if shelf is None else shelf.opened(fitted), inputs, sample, wanted)
    return gather(columns, requests, target, rule, sample)


def make_block(
    frame: pd.DataFrame,
    role: str,
    job: Job,
    rule: SplitRule,
    fitted: Sequence[Fitted],
    inputs: Sequence[str],
    names: Sequence[str],
    shelf: Shelf | None = None,
) -> Block:
    """On a worker: the features of one partition."""
    target, test = assign(frame, role, job, rule)
    known = ~np.isnan(target)
    if not known.all():
        frame, target, test = frame[known], target[known], test[known]
    operations = fitted if shelf is None else shelf.opened(fitted)
    columns = apply(frame, operations, inputs, sample_of(frame, ~test, job, rule))
    matrix = to_matrix(columns, names, len(frame))
    protected = {name: pa.array(frame[name], from_pandas=True) for name in job.data.protected}
    return Block(_array(frame[ROW_ID]), test, target, matrix, protected)


def _array(series: pd.Series) -> pa.Array:
    array = pa.array(series, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def write_block(block: Block, path: str, store: Store, names: Sequence[str], target: str, rule: SplitRule) -> Part:
    """On a worker: one file of the table `features`."""
    return store.write_parquet(path, block.table(names, target, rule))
