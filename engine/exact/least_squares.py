"""Linear and ridge regression, and the ridge classifier, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.engine.exact.classes import check_classes, class_factors
from treadle.engine.exact.params import LinearRegression, Ridge
from treadle.engine.exact.solving import solve_semidefinite, solve_triangle
from treadle.engine.models.base import Task
from treadle.engine.models.linear import LinearModel
from treadle.engine.passes import Passes, Rows, check_finite
from treadle.engine.weights import check_mass
from treadle.kernels.triangle import Triangle, merge_all, triangle

NO_KERNEL = "on the host, since the triangular factor of least squares has no kernel for GPUs"


def linear_regression(params: LinearRegression, passes: Passes, notes: list[str]) -> LinearModel:
    """Ordinary least squares, of the least norm where features are collinear; from one pass."""
    passes.check((passes.features + 1, passes.features + 1))
    gathered: Triangle = passes.over(triangle_of, merge_all, params.fit_intercept, host=NO_KERNEL)
    check_mass(gathered.weight)
    factor, d = gathered.factor, passes.features
    means = gathered.mean[:d] if params.fit_intercept else passes.with_target().mean[0, :d]
    check_finite(means)
    # What is below the features' own rows is what no combination of them comes near.
    coefficients, lost = solve_triangle(factor[:d, :d], factor[:d, d], params.tol)
    if lost:
        notes.append(
            f"{lost} features, or combinations of them, are so small beside others that tol ({params.tol:g}) leaves "
            "them out; add {op: scale} to features, or lower tol"
        )
    intercept = gathered.mean[d] - gathered.mean[:d] @ coefficients
    return LinearModel("regression", "identity", coefficients, intercept, means)


def triangle_of(rows: Rows, centred: bool) -> Triangle:
    """On a worker: the factor of features and target."""
    return triangle(rows.matrix, rows.target[:, None], rows.index, rows.weight, centred)


def ridge(params: Ridge, passes: Passes) -> LinearModel:
    """Least squares of numbers with a penalty of alpha times the squared coefficients; from one pass."""
    moments = passes.with_target()
    products, mean = moments.within, moments.mean[0]
    if not params.fit_intercept:
        products = products + moments.weight[0] * np.outer(mean, mean)
    coefficients = _solve(products[:-1, :-1], products[:-1, -1], params.alpha)
    intercept = mean[-1] - mean[:-1] @ coefficients if params.fit_intercept else 0.0
    return LinearModel("regression", "identity", coefficients, np.array([intercept]), mean[:-1])


def ridge_classifier(params: Ridge, task: Task, classes: Sequence[Any], passes: Passes) -> LinearModel:
    """Ridge regression of 1 for a class and -1 for the others, for each class; of two classes for the last one.

    All it needs follows from the moments of the features by class.
    """
    moments = passes.classes(len(classes), "within" if params.class_weight is None else "each")
    check_classes(moments.weight, classes)
    center = moments.center
    if params.class_weight is not None:
        moments = moments.reweighted(class_factors(params.class_weight, classes, moments.weight))
    weight, whole = moments.weight, moments.weight.sum()
    targets = 2.0 * np.eye(len(classes)) - 1.0
    if task == "binary":
        targets = targets[:, 1:]
    if params.fit_intercept:
        mean, level = moments.center, weight @ targets / whole
        products = moments.total()
    else:
        mean, level = np.zeros(passes.features), np.zeros(targets.shape[1])
        products = moments.within + (moments.mean * weight[:, None]).T @ moments.mean
    right = ((moments.mean - mean) * weight[:, None]).T @ (targets - level)
    coefficients = _solve(products, right, params.alpha)
    return LinearModel(task, "decision", coefficients.T, level - mean @ coefficients, center)


def _solve(products: np.ndarray, right: np.ndarray, alpha: float) -> np.ndarray:
    return solve_semidefinite(products + alpha * np.eye(len(products)), right)
