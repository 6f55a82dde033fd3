"""Prepared rows of a job, shared by the stages that pass over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.artifacts import Piece, Prepared, SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.context import Context
from treadle.engine.inputs import row_bytes
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.errors import DataError
from treadle.kernels.hashing import mix64
from treadle.kernels.sketch import key_of_float64, key_of_int64

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Future

HELD_SHARE = 0.3
"""Rows are kept between passes while they take less than this share of the cluster's memory."""


def program_of(context: Context, prepared: Prepared) -> Program:
    """The compiled operations of an `etl` stage."""
    job = context.job
    kinds = prepared.source.kinds
    steps = tuple(
        Step(
            i,
            job.tables[i],
            prepared.sides[i].path if i in prepared.sides else None,
            tuple(prepared.side_kinds.get(i, {}).items()),
            i in prepared.multiplying,
        )
        for i in range(prepared.first, len(job.tables))
    )
    id_column = job.data.id if job.data.id in kinds else None
    return Program(context.store, context.backend, tuple(kinds.items()), id_column, steps)


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
            info = context.client.scheduler_info(n_workers=-1)["workers"].values()
            if size < HELD_SHARE * sum(worker["memory_limit"] or 2**34 for worker in info):
                rows.frames = context.submit(rows.program.rows, rows.partitions)
        return context.live["rows"]

    def map(self, function: Callable[..., Any], *args: Any) -> list[Future]:
        """`function(frame, role, *args)` of every partition."""
        roles = [partition[0].role for partition in self.partitions]
        if self.frames is None:
            items = list(zip(self.partitions, roles, strict=True))
            return self.context.submit(read_and_apply, items, self.program, function, args)
        return [
            self.context.client.submit(function, frame, role, *args, pure=False)
            for frame, role in zip(self.frames, roles, strict=True)
        ]

    def release(self) -> None:
        """Lets the workers forget the rows; later passes read them again."""
        self.frames = None


def read_and_apply(
    item: tuple[Sequence[Piece], str], program: Program, function: Callable[..., Any], args: tuple[Any, ...]
) -> Any:
    """On a worker: a pass over one partition that was not held."""
    partition, role = item
    return function(program.rows(partition), role, *args)


def hash_keys(series: pd.Series, seed: int) -> np.ndarray:
    """A 64-bit key of every value, uniform, the same on every machine and for every partitioning."""
    import pandas as pd

    if series.dtype == "str":
        raw = pd.util.hash_array(series.to_numpy(dtype=object, na_value=""), categorize=True)
    else:
        raw = ordered_keys(series)
    return mix64(raw, seed)


def ordered_keys(series: pd.Series) -> np.ndarray:
    """Numbers and times as uint64 in the same order."""
    if series.dtype.kind == "f":
        return key_of_float64(series.to_numpy("float64"))
    if series.dtype.kind == "M":
        return key_of_int64(series.to_numpy("datetime64[us]").astype("int64"))
    return key_of_int64(series.to_numpy("int64", na_value=np.iinfo("int64").min))


def split_keys(frame: pd.DataFrame, job: Job, kind: str) -> np.ndarray:
    """The key of every row by which a split orders it: a hash of its id or group, or its time."""
    split = job.split
    if kind in ("time", "group"):
        column = frame[split.column]  # type: ignore[union-attr]
        if kind == "time" and column.isna().any():
            raise DataError(
                f"split: column '{column.name}' is null in {int(column.isna().sum())} rows; filter them out."
            )
        return hash_keys(column, job.seed) if kind == "group" else ordered_keys(column)
    return hash_keys(frame[ROW_ID], job.seed)


def assign(frame: pd.DataFrame, role: str, job: Job, rule: SplitRule) -> tuple[np.ndarray, np.ndarray]:
    """Target (class code or value; NaN where null or not looked at) and whether each row is a test row."""
    target = target_codes(frame[job.data.target], rule) if rule.has_target else np.full(len(frame), np.nan)
    if rule.kind in ("none", "path"):
        return target, np.full(len(frame), role == "test")
    keys = split_keys(frame, job, rule.kind)
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
