"""Rows in memory that are passed over as a run passes over its partitions, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.encoders import Fitted, Kind, Training, apply
from treadle.engine.job import Job
from treadle.engine.recipe import fit, inputs_of


@dataclass
class Parts:
    """Stands for `treadle.engine.rows.Rows`: partitions with their roles, merged in pairs."""

    frames: Sequence[pd.DataFrame]
    roles: Sequence[str]

    def reduce(self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any) -> Any:
        partials = [function(frame, role, *args) for frame, role in zip(self.frames, self.roles, strict=True)]
        while len(partials) > 1:
            partials = [merge(partials[i : i + 2]) for i in range(0, len(partials), 2)]
        return merge(partials)


def job_of(features: Sequence[Mapping[str, Any]] = (), **sections: Any) -> Job:
    """A job on the target `y`."""
    data = {"path": "in.parquet", "target": "y", **sections.pop("data", {})}
    return Job.model_validate(
        {"name": "job", "data": data, "features": features, "models": ["decision_tree"], **sections}
    )


def by_path(task: str = "regression", classes: tuple[Any, ...] = ()) -> SplitRule:
    """The rule of a split whose sides are files: the roles decide."""
    return SplitRule.model_validate(
        {"kind": "path", "seed": 1, "column": None, "bounds": (), "task": task, "classes": classes}
        | {"train_rows": 1, "test_rows": 1, "dropped_rows": 0}
    )


def fitted_on(
    features: Sequence[Mapping[str, Any]], *frames: pd.DataFrame, test: Sequence[pd.DataFrame] = ()
) -> tuple[list[Fitted], dict[str, Kind], list[str]]:
    """Operations fitted on the partitions `frames`: these, the kinds after them, and the columns they start from.

    A target `y` of zeros is added; `test` are partitions of the other side.
    """
    every = [frame.assign(y=0.0) for frame in (*frames, *test)]
    roles = ["train"] * len(frames) + ["test"] * len(test)
    job = job_of(features)
    inputs = inputs_of(job, kinds_of(every[0]))
    fitted, kinds = fit(Parts(every, roles), job, by_path(), inputs)  # type: ignore[arg-type]
    return fitted, kinds, list(inputs)


def applied(
    operations: Sequence[Fitted], inputs: Sequence[str], frame: pd.DataFrame, training: Training | None = None
) -> pd.DataFrame:
    """The columns after the operations, as a frame."""
    columns = apply(frame, operations, inputs, training)
    made = {name: c if isinstance(c, pd.Series) else np.asarray(c) for name, c in columns.items()}
    return pd.DataFrame(made, index=frame.index)
