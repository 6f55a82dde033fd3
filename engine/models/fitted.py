"""A fitted estimator of any library as a model of ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.engine.models.base import Link, Model, Task
from treadle.engine.models.boosted import LINKS
from treadle.engine.models.catalogue import Entry, OwnEntry
from treadle.engine.models.constant import ConstantModel
from treadle.engine.models.forest import ForestModel
from treadle.engine.models.linear import LinearModel
from treadle.engine.models.own import OwnModel
from treadle.errors import DataError, UnsupportedModel


def fitted_model(
    entry: Entry,
    task: Task,
    estimator: Any,
    matrix: np.ndarray,
    target: np.ndarray,
    seed: int,
    weight: np.ndarray | None = None,
) -> Model:
    """The model of an estimator that was fitted on a matrix (rows, features), codes of classes or values, and weights.

    Raises
    ------
    DataError
        Its parameters made a model that no compiled forest represents.
    """
    link: Link = LINKS[task] if entry.probabilities or task == "regression" else "decision"
    if entry.family in ("forest", "additive"):
        try:
            return ForestModel.of(task, estimator) if entry.family == "forest" else _additive(task, link, estimator)
        except UnsupportedModel as error:
            raise DataError(str(error)) from error
    if entry.family == "linear":
        return LinearModel(
            task, link, estimator.coef_, estimator.intercept_, np.average(matrix, axis=0, weights=weight)
        )
    if entry.family == "network":
        from treadle.engine.models.network import NetworkModel

        return NetworkModel.of(task, link, estimator, matrix, seed)
    if entry.family == "neighbours":
        from treadle.engine.models.neighbours import NeighboursModel

        return NeighboursModel.of(task, estimator, matrix, target, seed)
    if isinstance(entry, OwnEntry):
        classes = 1 if task == "regression" else len(np.unique(target))
        return OwnModel.of(entry.path, task, estimator, matrix, classes, seed)
    assert entry.family == "constant", f"{entry.family} models are not made of a library's estimator"
    values = estimator.predict(matrix[:1]) if task == "regression" else estimator.predict_proba(matrix[:1])[0]
    return ConstantModel(task, matrix.shape[1], values[1:] if task == "binary" else values)


def _additive(task: Task, link: Link, estimator: Any) -> ForestModel:
    """Trees that add up to what the link makes probabilities of, but for a factor."""
    scale = 1.0
    if type(estimator).__name__ == "AdaBoostClassifier" and task == "multiclass":
        # Zhu et al., "Multi-class AdaBoost" (2009), equation 15.
        scale = 1.0 / (len(estimator.classes_) - 1)
    if getattr(estimator, "loss", None) == "exponential":
        # The decision function is half of the log-odds: Friedman, Hastie and Tibshirani (2000), lemma 1.
        scale = 2.0
    return ForestModel.of(task, estimator, link, scale)
