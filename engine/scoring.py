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
    ids: pa.Array, matrix: np.ndarray, model: Model, names: Sequence[str], classes: Sequence[Any]
) -> tuple[pa.Table, np.ndarray, float]:
    """id, one float32 column a feature, bias; with several classes a row for each of them, named in `class`.

    Returns
    -------
    The table, the sum of |contribution| by feature (float64), and the largest additivity error
    of a row, |sum - margin| / max(1, |margin|).

    Raises
    ------
    DataError
        The contributions of a row do not add up to its margin.
    """
    values = model.contributions(matrix)
    margin = model.margin(matrix)
    error = np.abs(values.sum(axis=-1) - margin) / np.maximum(1.0, np.abs(margin))
    worst = float(error.max(initial=0.0))
    if worst > ADDITIVITY_BOUND:
        raise DataError(
            f"The contributions of a row miss its margin by {worst:.2g}, more than {ADDITIVITY_BOUND:g}; "
            "the explanation would be wrong and is not written. Please report it with the model."
        )
    columns: dict[str, Any] = {"id": ids}
    if model.task == "multiclass":
        k = len(classes)
        rows = np.repeat(np.arange(len(ids)), k)
        columns["id"] = ids.take(pa.array(rows))
        columns["class"] = pa.array(list(classes)).take(pa.array(np.tile(np.arange(k), len(ids))))
        values = values.reshape(len(ids) * k, values.shape[-1])
    stored = values.astype(np.float32)
    columns.update({name: pa.array(stored[:, i]) for i, name in enumerate(names)})
    columns["bias"] = pa.array(stored[:, -1])
    return pa.table(columns), np.abs(values[:, :-1]).sum(axis=0), worst
