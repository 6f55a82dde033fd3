"""Prepared rows of a job, shared by the stages that pass over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from treadle.engine.artifacts import Folds, Piece, Prepared, SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.context import Context
from treadle.engine.inputs import row_bytes
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.engine.relational import Sample
from treadle.engine.relational.keys import hash_keys, ordered_keys
from treadle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Future

SAMPLE_SEED = 2
"""Added to the job's: rows that are in a fold, or in the test, together are not drawn together."""
HELD_SHARE = 0.3
"""Rows are kept between passes while they take less than this share of the cluster's memory."""


def program_of(context: Context, prepared: Prepared) -> Program:
    """What is still to be done with the rows of an `etl` stage's source."""
    return _program(context, prepared, prepared.source.kinds, prepared.start)


def replay_of(context: Context, prepared: Prepared) -> Program:
    """What is done with raw rows to predict: all that makes columns of a row; sampling is for training."""
    program = _program(context, prepared, prepared.origin, prepared.first)
    return replace(program, steps=tuple(s for s in program.steps if not isinstance(s.operation, Sample)))


def _program(context: Context, prepared: Prepared, kinds: Mapping[str, str], start: int) -> Program:
    job = context.job
    steps = tuple(Step.of(record) for record in prepared.steps if record.index >= start)
    id_column = job.data.id if job.data.id in kinds else None
    return Program(context.store, context.backend, tuple(kinds.items()), id_column, steps)


class Gathered(Protocol):
    """Prepared rows that statistics can be gathered of."""

    def reduce(self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any) -> Any:
        """The merged results of `function(frame, role, *args)` of every partition."""


@dataclass(frozen=True)
class HereRows:
    """Prepared rows that are in this process: frames with their roles."""

    frames: Sequence[tuple[pd.DataFrame, str]]

    def reduce(self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any) -> Any:
        return merge([function(frame, role, *args) for frame, role in self.frames])


@dataclass
class Rows:
    """Prepared rows by partition; held on the workers after the first pass when they fit."""

    context: Context
    program: Program
    partitions: tuple[tuple[Piece, ...], ...]
    frames: list[Future] | None = None

    @classmethod
    def of(cls, context: Context, prepared: Prepared) -> Rows:
        """The rows of a run: every stage gets the same object, so that they are made once."""
        if "rows" not in context.live:
            context.live["rows"] = cls(context, program_of(context, prepared), prepared.source.partitions)
            rows = context.live["rows"]
            size = prepared.source.rows * row_bytes(kinds_of(rows.program.empty()))
            room = context.room
            if size < HELD_SHARE * room.count * room.memory:
                rows.frames = context.submit(rows.program.rows, rows.partitions)
        return context.live["rows"]

    def map(self, function: Callable[..., Any], *args: Any, each: Sequence[Any] | None = None) -> list[Future]:
        """`function(frame, role, *args)` of every partition; `each` has one more argument for every one."""
        roles = [partition[0].role for partition in self.partitions]
        more = [args] * len(roles) if each is None else [(*args, own) for own in each]
        if self.frames is None:
            items = list(zip(self.partitions, roles, more, strict=True))
            return self.context.submit(read_and_apply, items, self._here, function)
        return [
            self.context.client.submit(function, frame, role, *own, pure=False)
            for frame, role, own in zip(self.frames, roles, more, strict=True)
        ]

    def reduce(self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any) -> Any:
        """The merged results of `function(frame, role, *args)` of every partition."""
        return self.context.reduce(self.map(function, *args), merge)

    def hold(self) -> list[Future]:
        """The frames of all partitions, on the workers from now on."""
        if self.frames is None:
            self.frames = self.context.submit(self._here.rows, self.partitions)
        return self.frames

    @property
    def _here(self) -> Program:
        """The program for the current stage, which is told what the host does of it."""
        return replace(self.program, backend=self.context.backend)

    def release(self) -> None:
        """Lets the workers forget the rows; later passes read them again."""
        self.frames = None


def read_and_apply(
    item: tuple[Sequence[Piece], str, tuple[Any, ...]], program: Program, function: Callable[..., Any]
) -> Any:
    """On a worker: a pass over one partition that was not held."""
    partition, role, args = item
    return function(program.rows(partition), role, *args)


def row_keys(frame: pd.DataFrame, kind: str, column: str | None, seed: int) -> np.ndarray:
    """uint64: the key of every row by which a split or folds order it: a hash of its id or group, or its time."""
    if kind == "time":
        nulls = int(frame[column].isna().sum())
        if nulls:
            raise DataError(f"split: column '{column}' is null in {nulls} rows; filter them out.")
        return ordered_keys(frame[column])
    return hash_keys(frame[column if kind == "group" else ROW_ID], seed)


def folds_of(frame: pd.DataFrame, target: np.ndarray, folds: Folds) -> np.ndarray:
    """int64 (rows,): the fold of every row as if it was for training, by its class code, or its value, in `target`.

    Of folds by time -1 is what lies before the first.
    """
    import pandas as pd

    if folds.kind == "given":
        return frame[folds.column].astype(pd.CategoricalDtype(list(folds.values))).cat.codes.to_numpy().astype(np.int64)
    keys = row_keys(frame, folds.kind, folds.column, folds.seed)
    out = np.zeros(len(frame), dtype=np.int64)
    of_class = np.nan_to_num(target).astype(np.int64) if folds.kind == "stratified" else out
    for code, bounds in enumerate(folds.bounds):
        mine = of_class == code
        out[mine] = np.searchsorted(np.asarray(bounds, dtype=np.uint64), keys[mine], side="right")
    return out - 1 if folds.kind == "time" else out


def assign(frame: pd.DataFrame, role: str, job: Job, rule: SplitRule) -> tuple[np.ndarray, np.ndarray]:
    """Target (class code or value; NaN where null or not looked at) and whether each row is a test row.

    By the rule of a fold the target is also NaN, so that they are left out, in rows that have no part in it.
    """
    target, test = _sides(frame, role, job, rule)
    if rule.folds is None:
        return target, test
    fold = folds_of(frame, target, rule.folds)
    no_part = test | (fold > rule.fold if rule.folds.kind == "time" else False)
    return np.where(no_part, np.nan, target), fold == rule.fold


def _sides(frame: pd.DataFrame, role: str, job: Job, rule: SplitRule) -> tuple[np.ndarray, np.ndarray]:
    target = target_codes(frame[job.data.target], rule) if rule.has_target else np.full(len(frame), np.nan)
    if rule.kind in ("none", "path"):
        return target, np.full(len(frame), role == "test")
    if rule.kind == "folds":
        return target, frame[rule.column].isna().to_numpy(bool)
    keys = row_keys(frame, rule.kind, rule.column, job.seed)
    if rule.kind == "time":
        return target, keys >= np.uint64(rule.bounds[0])
    bounds = np.asarray(rule.bounds, dtype=np.uint64)
    if rule.kind == "stratified":
        return target, keys < bounds[np.nan_to_num(target).astype(np.int64)]
    return target, keys < bounds[0]


def target_codes(series: pd.Series, rule: SplitRule) -> np.ndarray:
    """The target as float64: the code of its class, or its value; NaN where it is null or of no known class."""
    import pandas as pd

    if rule.task == "regression":
        return series.astype("float64").to_numpy()
    codes = series.astype(pd.CategoricalDtype(list(rule.classes))).cat.codes.to_numpy().astype("float64")
    return np.where(codes < 0, np.nan, codes)
