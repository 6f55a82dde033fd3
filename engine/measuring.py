"""Metrics of models on rows, by task, from statistics that merge exactly over partitions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from treadle.engine.models.base import Model
from treadle.engine.models.calibration import logistic
from treadle.kernels import metrics as m

TASKS: Mapping[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., dict[str, float]]]] = {
    "binary": (m.score_table, m.merge_score_tables, m.binary_metrics),
    "multiclass": (m.class_table, m.merge_class_tables, m.multiclass_metrics),
    "regression": (m.error_table, m.merge_error_tables, m.regression_metrics),
}
"""By task: the statistics of a partition, how they merge, and the metrics that follow from them."""
MARGINS: Mapping[str, tuple[Callable[..., Any], Callable[..., dict[str, float]]]] = {
    "binary": (
        functools.partial(m.score_table, probabilities=False),
        functools.partial(m.binary_metrics, probabilities=False),
    ),
    "multiclass": (
        functools.partial(m.class_table, probabilities=False),
        functools.partial(m.multiclass_metrics, probabilities=False),
    ),
}
"""The same statistics and metrics from the margins of models without probabilities."""


def table_of(model: Model, task: str, margin: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> Any:
    """The statistics of some rows that metrics follow from."""
    return TASKS[task][0](scores, labels) if model.has_probabilities else MARGINS[task][0](margin, labels)


def metrics_of(model: Model, task: str, margin: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """A model's metrics on some rows, by their margins, scores and classes or values."""
    table = table_of(model, task, margin, scores, labels)
    return metrics_from(table, task, model.has_probabilities, model.threshold)


def metrics_from(table: Any, task: str, probabilities: bool, threshold: float) -> dict[str, float]:
    """The metrics that follow from statistics of a model's rows; of two classes at its threshold."""
    decision = {"threshold": _cut(table, probabilities, threshold)} if task == "binary" else {}
    metrics = TASKS[task][2] if probabilities else MARGINS[task][1]
    return metrics(table, **decision)


def _cut(table: m.ScoreTable, probabilities: bool, threshold: float) -> float:
    """What a score in the table of two classes, or a margin, is above where the model calls its row positive."""
    if probabilities:
        return threshold
    # In the scores' own rounding, so that the metrics are those of the classes that the model predicts.
    return float(table.scores[logistic(table.scores) <= threshold].max(initial=-math.inf))
