"""Rows of the tables `predictions` and `explanations`, made in one way by runs and by batch prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from treadle.engine.models.base import Model
from treadle.errors import DataError

ADDITIVITY_BOUND = 1e-4
"""Largest accepted |sum of contributions - margin|, relative to the margin's size where that is above 1."""


def prediction_table(ids: pa.Array, matrix: np.ndarray, model: Model, classes: Sequence[Any]) -> pa.Table:
    """id, score (of the positive class, or the value), margin, class; `score_<class>` and so on for several classes."""
    margin = model.margin(matrix)
    scores = model.scores(margin)
    if model.task == "regression":
        return pa.table({"id": ids, "score": scores, "margin": margin})
    labels = pa.array(list(classes)).take(pa.array(model.classes(scores).astype(np.int64)))
    if model.task == "binary":
        return pa.table({"id": ids, "score": scores, "margin": margin, "class": labels})
    columns: dict[str, Any] = {"id": ids}
    columns.update({f"score_{c}": pa.array(scores[:, i]) for i, c in enumerate(classes)})
    columns.update({f"margin_{c}": pa.array(margin[:, i]) for i, c in enumerate(classes)})
    return pa.table({**columns, "class": labels})


def explanation_table(
    ids: pa.Array,
    matrix: np.ndarray,
    model: Model,
    names: Sequence[str],
    classes: Sequence[Any],
    top_k: int | None = None,
    where: str = "the rows",
) -> tuple[pa.Table, np.ndarray, float]:
    """id, one float32 column a feature, bias; with several classes a row for each of them, named in `class`.

    With `top_k` columns are, for n from 1, feature_<n> and contribution_<n>, the largest by size first, and
    `others`, the sum of what is left; features that are equally large come in the order of their columns.

    Returns
    -------
    The table, the sum of |contribution| by feature (float64), and the largest additivity error
    of a row, |sum - margin| / max(1, |margin|).

    Raises
    ------
    DataError
        The contributions of a row do not add up to its margin; names `where` it is.
    """
    values = model.contributions(matrix)
    margin = model.margin(matrix)
    error = np.abs(values.sum(axis=-1) - margin) / np.maximum(1.0, np.abs(margin))
    worst = float(error.max(initial=0.0))
    if worst > ADDITIVITY_BOUND:
        row = int(np.argmax(error if error.ndim == 1 else error.max(axis=1)))
        raise DataError(
            f"The contributions of row {row} of {where} miss its margin by {worst:.2g}, more than "
            f"{ADDITIVITY_BOUND:g}; the explanation would be wrong and is not written. Please report it with the model."
        )
    columns: dict[str, Any] = {"id": ids}
    if model.task == "multiclass":
        k = len(classes)
        rows = np.repeat(np.arange(len(ids)), k)
        columns["id"] = ids.take(pa.array(rows))
        columns["class"] = pa.array(list(classes)).take(pa.array(np.tile(np.arange(k), len(ids))))
        values = values.reshape(len(ids) * k, values.shape[-1])
    stored = values.astype(np.float32)
    if top_k is None:
        columns.update({name: pa.array(stored[:, i]) for i, name in enumerate(names)})
    else:
        columns.update(_largest(values[:, :-1], names, min(top_k, len(names))))
    columns["bias"] = pa.array(stored[:, -1])
    return pa.table(columns), np.abs(values[:, :-1]).sum(axis=0), worst


def _largest(values: np.ndarray, names: Sequence[str], count: int) -> dict[str, Any]:
    """Columns of the `count` largest contributions of each row of `values` (rows, features), and of the others' sum."""
    order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(values, order, axis=1)
    all_names = pa.array(list(names), pa.string())
    columns: dict[str, Any] = {}
    for n in range(count):
        columns[f"feature_{n + 1}"] = all_names.take(pa.array(order[:, n]))
        columns[f"contribution_{n + 1}"] = pa.array(kept[:, n].astype(np.float32))
    columns["others"] = pa.array((values.sum(axis=1) - kept.sum(axis=1)).astype(np.float32))
    return columns
