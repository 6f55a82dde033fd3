"""Weights of rows: what each counts when a model is trained, from the column that `data.weight` names.

They count in training only: features are fitted, and models measured, calibrated and explained, by rows that count 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.blocks import Block
from treadle.engine.job import Job
from treadle.errors import DataError, RequestError

if TYPE_CHECKING:
    import pandas as pd


SMALL = 0.1
"""Weights that are less on the average are told of: libraries may learn nothing from them."""


@dataclass(frozen=True)
class Weights:
    """What one partition, or several, say of the weights of training rows."""

    rows: int
    nulls: int
    negative: int
    infinite: int
    first: str
    """The first that is no weight, with the id of its row; empty where there is none."""
    positive: int
    """Rows that count more than 0."""
    total: float
    """What they count together."""


def check_kind(job: Job, kinds: Mapping[str, str]) -> None:
    """Refuses a column of weights that holds no numbers.

    Raises
    ------
    RequestError
        It is text, bool or timestamp.
    """
    name = job.data.weight
    if name is None or kinds[name] in ("int", "float"):
        return
    remedy = f"{{op: cast, columns: {{{name}: float}}}}"
    if kinds[name] == "timestamp":
        remedy = f'{{op: derive, name: weight, sql: "..."}}, which makes a number of {name},'
    raise RequestError(
        f"data.weight: column '{name}' is {kinds[name]}, and what rows count are numbers, 0 or more; add {remedy} to "
        "tables, or name another column."
    )


def weights_of(frame: pd.DataFrame, name: str | None) -> np.ndarray | None:
    """Of prepared rows: float64 (rows,), NaN where null; None without a column of weights."""
    return None if name is None else frame[name].astype("float64").to_numpy()


def check_weights(found: Weights, name: str) -> list[str]:
    """Refuses weights of a column, by what was found of all training rows; what is to be said of others.

    Raises
    ------
    DataError
        Some are null, negative or infinite, or all are 0.
    """
    parts = {"null": found.nulls, "negative": found.negative, "infinite": found.infinite}
    if wrong := sum(parts.values()):
        told = ", ".join(f"{count} {kind}" for kind, count in parts.items() if count)
        raise DataError(
            f"data.weight: column '{name}' has no weight in {wrong} of {found.rows} training rows ({told}; the first "
            f"is {found.first}). What rows count are finite numbers, 0 or more: make them so with a derive in tables, "
            "or filter the rows out; a row that counts 0 is not learned from."
        )
    if not found.positive:
        raise DataError(
            f"data.weight: column '{name}' is 0 in all {found.rows} training rows, so that no row is learned from; "
            "name another column, or leave data.weight out."
        )
    mean = found.total / found.positive
    if mean >= SMALL:
        return []
    return [
        f"data.weight: the weights of '{name}' that are not 0 are {mean:.3g} on the average: penalties, and bounds "
        "such as xgboost's min_child_weight, are for weights of about 1; multiply them in tables to have them so"
    ]


def count_weights(block: Block) -> Weights:
    """On a worker: of the training rows of a block that has weights."""
    assert block.weight is not None
    used = np.flatnonzero(~block.test)
    weight = block.weight[used]
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    first = ""
    if len(wrong):
        value = weight[wrong[0]]
        row = block.ids[int(used[wrong[0]])].as_py()
        first = f"{'null' if math.isnan(value) else float(value)}, in the row with the id {row}"
    return Weights(
        rows=len(weight),
        nulls=int(np.isnan(weight).sum()),
        negative=int((weight < 0).sum()),
        infinite=int(np.isposinf(weight).sum()),
        first=first,
        positive=int((weight > 0).sum()),
        total=float(weight[weight > 0].sum()),
    )


def merge_weights(parts: Sequence[Weights]) -> Weights:
    """Of several partitions, in their order."""
    return Weights(
        rows=sum(part.rows for part in parts),
        nulls=sum(part.nulls for part in parts),
        negative=sum(part.negative for part in parts),
        infinite=sum(part.infinite for part in parts),
        first=next((part.first for part in parts if part.first), ""),
        positive=sum(part.positive for part in parts),
        total=math.fsum(part.total for part in parts),
    )


def check_mass(mass: float, of: str = "training rows") -> None:
    """Raises DataError when rows count nothing together: a fold's, say, or those of a sample."""
    if not mass > 0:
        raise DataError(f"all {of} have the weight 0, so that there is nothing to learn from; look at data.weight")
