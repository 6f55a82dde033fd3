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
from treadle.engine.encoders import Fitted, FittedImpute, Impute, Kind, Operation, apply, numbers, to_matrix
from treadle.engine.job import Job
from treadle.engine.operation import OWN_COLUMNS, ROW_ID
from treadle.engine.rows import Rows, assign
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError, listed
from treadle.kernels.moments import merge as merge_moments
from treadle.kernels.moments import moments
from treadle.kernels.sketch import merge_all, sketch_floats

if TYPE_CHECKING:
    import pandas as pd

REVISION = 1
KIND_OF: Mapping[str, Kind] = {
    "int": "number",
    "float": "number",
    "bool": "number",
    "text": "text",
    "timestamp": "timestamp",
}
Request = tuple[str, str]
"""A column and the statistic that is gathered of it."""


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
        names = operation.resolve(current, f"features.{i} ({operation.op})")
        statistics = {name: {"?": 1} for name in names} if operation.statistic() == "levels" else None
        if statistics is not None and not isinstance(operation, Impute):
            current = operation.fit(names, statistics).kinds(current)
        elif operation.statistic() is None:
            current = operation.fit(names, {}).kinds(current)
        elif isinstance(operation, Impute):
            current = FittedImpute(values=dict.fromkeys(names, 0.0), indicator=operation.indicator).kinds(current)
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
    job = context.job
    rows = Rows.of(context, prepared)
    inputs = inputs_of(job, prepared.kinds)
    fitted, kinds = fit(rows, job, rule, inputs)
    _all_numbers(kinds)
    names = tuple(kinds)
    _check_names(job, names)
    blocks = rows.map(make_block, job, rule, fitted, tuple(inputs), names)
    tasks = [
        context.client.submit(
            write_block,
            block,
            f"{context.folder}/part-{i:05d}.parquet",
            context.store,
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
    return Features(table=tuple(parts), names=names, inputs=inputs, operations=tuple(fitted))  # type: ignore[arg-type]


def fit(rows: Rows, job: Job, rule: SplitRule, inputs: Mapping[str, Kind]) -> tuple[list[Fitted], dict[str, Kind]]:
    """The fitted operations in order, and the columns after the last."""
    fitted: list[Fitted] = []
    waiting: list[tuple[Operation, tuple[str, ...]]] = []
    kinds = dict(inputs)

    def gather() -> None:
        nonlocal kinds
        requests = [(name, s) for operation, names in waiting if (s := operation.statistic()) for name in names]
        found: dict[Request, Any] = {}
        if requests:
            futures = rows.map(statistics_of, job, rule, tuple(fitted), tuple(inputs), tuple(requests))
            found = rows.context.reduce(futures, merge)
        for operation, names in waiting:
            fitted.append(
                operation.fit(names, {name: found.get((name, operation.statistic() or "")) for name in names})
            )
            kinds = fitted[-1].kinds(kinds)
        waiting.clear()

    for i, operation in enumerate(job.features):
        changing = {name for _, names in waiting for name in names}
        if waiting and (
            isinstance(operation.columns, str)
            or changing & set(operation.columns)
            or set(operation.columns) - set(kinds)
        ):
            gather()
        names = operation.resolve(kinds, f"features.{i} ({operation.op})")
        waiting.append((operation, names))
    gather()
    return fitted, kinds


def statistics_of(
    frame: pd.DataFrame,
    role: str,
    job: Job,
    rule: SplitRule,
    fitted: Sequence[Fitted],
    inputs: Sequence[str],
    requests: Sequence[Request],
) -> dict[Request, Any]:
    """On a worker: the requested statistics of the training rows of one partition."""
    target, test = assign(frame, role, job, rule)
    columns = apply(frame[~test & ~np.isnan(target)], fitted, inputs)
    found: dict[Request, Any] = {}
    for name, statistic in requests:
        series = columns[name]
        if statistic == "levels":
            # Else 0.0 and -0.0 would be one level with two names.
            series = series + 0.0 if series.dtype.kind == "f" else series
            counts = series.dropna().value_counts()
            found[name, statistic] = dict(zip(counts.index.tolist(), counts.tolist(), strict=True))
        else:
            values = numbers(series).to_numpy()
            found[name, statistic] = moments(values) if statistic == "moments" else sketch_floats(values)
    return found


def merge(partials: list[dict[Request, Any]]) -> dict[Request, Any]:
    """Statistics of several partitions as one."""
    merged: dict[Request, Any] = {}
    for request in partials[0]:
        found = [partial[request] for partial in partials]
        if request[1] == "moments":
            total = found[0]
            for other in found[1:]:
                total = merge_moments(total, other)
        elif request[1] == "sketch":
            total = merge_all(found)
        else:
            total = {}
            for counts in found:
                for level, n in counts.items():
                    total[level] = total.get(level, 0) + n
        merged[request] = total
    return merged


def make_block(
    frame: pd.DataFrame,
    role: str,
    job: Job,
    rule: SplitRule,
    fitted: Sequence[Fitted],
    inputs: Sequence[str],
    names: Sequence[str],
) -> Block:
    """On a worker: the features of one partition."""
    target, test = assign(frame, role, job, rule)
    known = ~np.isnan(target)
    if not known.all():
        frame, target, test = frame[known], target[known], test[known]
    matrix = to_matrix(apply(frame, fitted, inputs), names, len(frame))
    protected = {name: pa.array(frame[name], from_pandas=True) for name in job.data.protected}
    return Block(_array(frame[ROW_ID]), test, target, matrix, protected)


def _array(series: pd.Series) -> pa.Array:
    array = pa.array(series, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def write_block(block: Block, path: str, store: Store, names: Sequence[str], target: str, rule: SplitRule) -> Part:
    """On a worker: one file of the table `features`."""
    return store.write_parquet(path, block.table(names, target, rule))
