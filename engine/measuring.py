"""Metrics of models on rows, by task, from statistics that merge exactly over partitions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from treadle.engine.models.base import Model
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
    return TASKS[task][2](table) if model.has_probabilities else MARGINS[task][1](table)
