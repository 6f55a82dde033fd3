"""Training an exact model: from its place in the spec and passes over the rows to a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from treadle.engine.exact.discriminants import lda, naive_bayes, qda
from treadle.engine.exact.least_squares import linear_regression, ridge, ridge_classifier
from treadle.engine.exact.logistic import logistic_regression
from treadle.engine.exact.params import params_of, trains_exactly
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model, Task
from treadle.engine.passes import Passes
from treadle.kernels.scatter import Kind

BY_CLASSES: Mapping[str, Callable[..., Model]] = {
    "logistic_regression": logistic_regression,
    "lda": lda,
    "qda": qda,
    "naive_bayes": naive_bayes,
}


def fit(config: ModelConfig, task: Task, classes: Sequence[Any], passes: Passes) -> tuple[Model, list[str]]:
    """A model of `EXACT`, trained on all rows of the passes; what is to be said of it.

    Parameters
    ----------
    classes : in the order of their codes; none for numbers

    Raises
    ------
    RequestError
        A parameter is not what it may be.
    DataError
        The rows do not allow the model: they lack a class, a covariance is singular, or they are too wide.
    """
    params, notes = params_of(config), list[str]()
    if config.name == "linear_regression":
        return linear_regression(params, passes, notes), notes
    if config.name == "ridge":
        if task == "regression":
            return ridge(params, passes), notes
        return ridge_classifier(params, task, classes, passes), notes
    of_classes = BY_CLASSES[config.name]
    return of_classes(params, task, classes, passes, notes), notes


def kinds_of(configs: Iterable[ModelConfig]) -> list[Kind]:
    """What the exact classifiers among them want to know of the classes, so that one pass gathers it for all."""
    kinds: list[Kind] = []
    for config in filter(trains_exactly, configs):
        params = params_of(config)
        by_class = params.class_weight if config.name == "ridge" else getattr(params, "priors", None)
        if config.name == "qda" or (config.name in ("lda", "ridge") and by_class):
            kinds.append("each")
        elif config.name in ("lda", "ridge"):
            kinds.append("within")
        elif config.name in ("logistic_regression", "naive_bayes"):
            kinds.append("squares")
    return kinds
