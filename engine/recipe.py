"""How prepared rows become features: operations that are fitted on training rows, and applied to a partition.

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

from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import HOST, Backend
from treadle.engine.blocks import Block
from treadle.engine.encoders import Fitted, Kind, Operation, Shelf, Training, columns_for, needs, to_matrix
from treadle.engine.job import Job
from treadle.engine.operation import OWN_COLUMNS, ROW_ID
from treadle.engine.preparing import apply_features
from treadle.engine.rows import Gathered, assign, row_keys
from treadle.engine.statistics import Request, gather, merge
from treadle.engine.weights import weights_of

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.encoders.columns import Columns

KIND_OF: Mapping[str, Kind] = {
    "int": "number",
    "float": "number",
    "bool": "number",
    "text": "text",
    "timestamp": "timestamp",
}


def inputs_of(job: Job, kinds: Mapping[str, str]) -> dict[str, Kind]:
    """The columns that features are made of: all but target, id, weight and the column that the split goes by.

    The weight, the split's column and text among the protected columns are inputs only if an operation names them.
    """
    named = {c for o in job.features if not isinstance(o.columns, str) for c in o.columns}
    kept_back = {*job.split_columns, job.data.weight}
    kept_back |= {name for name in job.data.protected if KIND_OF[kinds[name]] in ("text", "timestamp")}
    never = {job.data.target, job.data.id, *OWN_COLUMNS}
    return {
        name: KIND_OF[kind]
        for name, kind in kinds.items()
        if name not in never and (name in named or name not in kept_back)
    }


def fit(
    rows: Gathered,
    job: Job,
    rule: SplitRule,
    inputs: Mapping[str, Kind],
    shelf: Shelf | None = None,
    backend: Backend = HOST,
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
            recipe = Recipe(job, rule, tuple(inputs), tuple(fitted), shelf, backend)
            found = rows.reduce(statistics_of, merge, recipe, asked)
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
    backend: Backend = HOST

    def columns(self, frame: pd.DataFrame, training: np.ndarray, wanted: set[str] | None = None) -> Columns:
        """The columns after the operations, or the wanted ones; `training` says which rows are for that."""
        columns = columns_for(frame, self.opened, self.inputs, wanted)
        return apply_features(self.backend, columns, self.opened, self.training(frame, training))

    @property
    def opened(self) -> Sequence[Fitted]:
        """The operations with all their levels."""
        return self.operations if self.shelf is None else self.shelf.opened(self.operations)

    def training(self, frame: pd.DataFrame, rows: np.ndarray) -> Training | None:
        """By what operations that look at the target are cross-fitted, if there are any; groups stay together."""
        if all(operation.statistic() != "targets" for operation in self.job.features):
            return None
        column = self.rule.grouped_by
        return Training(rows, row_keys(frame, "group" if column else "random", column, self.job.seed))


def statistics_of(frame: pd.DataFrame, role: str, recipe: Recipe, requests: Sequence[Request]) -> dict[Request, Any]:
    """On a worker: the requested statistics of the training rows of one partition."""
    recipe.backend.fell_back("statistics of columns", "on the host, since their kernels have no version for GPUs")
    target, test = assign(frame, role, recipe.job, recipe.rule)
    wanted = {request.column for request in requests}
    used = ~test & ~(np.isnan(target) & bool(recipe.job.models))
    if not used.all():
        needed = needs(recipe.opened, wanted) | {ROW_ID, *recipe.job.split_columns}
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
    return Block(arrow_array(frame[ROW_ID]), test, target, matrix, protected, weights_of(frame, recipe.job.data.weight))


def arrow_array(series: pd.Series) -> pa.Array:
    array = pa.array(series, from_pandas=True)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array
