"""Linear and quadratic discriminants and naive Bayes: normal distributions of the classes, from their moments.

Each is scikit-learn's estimator of the same name, worked out from moments instead of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.engine.exact.classes import check_classes, class_priors
from treadle.engine.exact.params import Discriminant, NaiveBayes, Quadratic
from treadle.engine.exact.solving import EPS, scales_of
from treadle.engine.models.base import Task
from treadle.engine.models.gaussian import GaussianModel
from treadle.engine.models.linear import LinearModel
from treadle.engine.passes import Passes
from treadle.errors import DataError, listed
from treadle.kernels.scatter import Scatter


def lda(params: Discriminant, task: Task, classes: Sequence[Any], passes: Passes, notes: list[str]) -> LinearModel:
    """Linear discriminants: classes of one covariance. Raises DataError when it is singular, with the solver eigen."""
    by_class = params.solver != "svd" and params.priors is not None
    moments = passes.classes(len(classes), "each" if by_class else "within")
    check_classes(moments.weight, classes)
    # Rows that count less than 1 may add up to as much: they differ from each other.
    if moments.weight.sum() == len(classes) and not moments.scatter.any():
        raise DataError("each class has one training row, which says nothing of how they vary; lda needs more rows")
    priors, said = class_priors(params.priors, classes, moments.weight)
    notes += said
    if params.solver == "svd":
        coefficients, intercept = _by_directions(moments, priors, params.tol)
    else:
        covariance = _shrunk(
            np.tensordot(priors / moments.weight, moments.scatter, 1)
            if by_class
            else moments.within / moments.weight.sum(),
            params.shrinkage,
        )
        coefficients = _by_covariance(covariance, moments.mean, params.solver)
        intercept = np.log(priors) - 0.5 * (moments.mean * coefficients).sum(axis=1)
    if task == "binary":
        coefficients, intercept = coefficients[1:] - coefficients[:1], intercept[1:] - intercept[:1]
    link = "logistic" if task == "binary" else "softmax"
    return LinearModel(task, link, coefficients, intercept, moments.center)  # type: ignore[arg-type]


def _by_directions(moments: Scatter, priors: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (classes, d) and intercepts from the directions in which the classes vary, as the solver svd.

    Directions of less than `tol` standard deviations of the scaled features are left out, and then those in which
    the classes' means differ by less than `tol` of the most.
    """
    rows, classes = moments.weight.sum(), len(moments.weight)
    scatter = moments.within
    scale = scales_of(np.diag(scatter) / rows)
    values, vectors = np.linalg.eigh(scatter / rows / scale[:, None] / scale)
    kept = values > max(tol * tol, len(values) * EPS)
    whitening = vectors[:, kept] / scale[:, None] / np.sqrt(values[kept])
    middle = priors @ moments.mean
    apart = moments.mean - middle
    between = (np.sqrt(rows * priors / (classes - 1))[:, None] * apart) @ whitening
    _, sizes, axes = np.linalg.svd(between, full_matrices=False)
    directions = whitening @ axes[sizes > tol * np.max(sizes, initial=0.0)].T
    places = apart @ directions
    coefficients = places @ directions.T
    return coefficients, np.log(priors) - 0.5 * (places * places).sum(axis=1) - coefficients @ middle


def _by_covariance(covariance: np.ndarray, mean: np.ndarray, solver: str) -> np.ndarray:
    """Coefficients (classes, d): those of least norm, or with `eigen` those of a covariance of full rank."""
    if solver == "lsqr":
        return np.linalg.lstsq(covariance, mean.T, rcond=EPS)[0].T
    scale = scales_of(np.diag(covariance))
    try:
        lower = np.linalg.cholesky(covariance / scale[:, None] / scale)
        if np.min(np.diag(lower)) < np.sqrt(len(lower) * EPS):
            raise np.linalg.LinAlgError
    except np.linalg.LinAlgError as error:
        raise DataError(
            "the covariance in the classes is singular, which the solver eigen cannot do with: features are collinear "
            "or constant, or there are too few rows; use the solver svd, or set shrinkage"
        ) from error
    return np.linalg.solve(lower.T, np.linalg.solve(lower, mean.T / scale[:, None])).T / scale


def _shrunk(covariance: np.ndarray, shrinkage: float | None) -> np.ndarray:
    """(1 - s) C + s times the mean variance; as it is without."""
    if shrinkage is None:
        return covariance
    d = len(covariance)
    return (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / d * np.eye(d)


def qda(params: Quadratic, task: Task, classes: Sequence[Any], passes: Passes, notes: list[str]) -> GaussianModel:
    """Quadratic discriminants: each class has its own covariance.

    Raises
    ------
    DataError
        A class has one row, or its covariance does not have full rank.
    """
    moments = passes.classes(len(classes), "each")
    check_classes(moments.weight, classes)
    priors, said = class_priors(params.priors, classes, moments.weight)
    notes += said
    alone = (moments.weight == 1) & ~moments.scatter.any(axis=(1, 2))
    if lonely := [name for name, is_alone in zip(classes, alone, strict=True) if is_alone]:
        raise DataError(
            f"class {listed(map(repr, lonely))} has 1 training row, which says nothing of how it varies; qda needs 2 "
            "or more of each class: filter it out in tables, or use lda"
        )
    factors, constants = [], np.log(priors)
    for code, name in enumerate(classes):
        variances, axes = _spectrum(_shrunk(moments.scatter[code] / moments.weight[code], params.shrinkage))
        remedy = "set shrinkage"
        if params.solver == "svd":
            variances = (1 - params.reg_param) * variances + params.reg_param
            remedy = f"raise reg_param (it is {params.reg_param:g})"
        rank = int((variances > params.tol).sum())
        if rank < passes.features:
            raise DataError(
                f"the covariance of class {name!r} has rank {rank} of {passes.features}, by tol {params.tol:g}: "
                "features are collinear, constant or tiny within the class, or its "
                f"{moments.weight[code]:g} rows are too few; "
                f"{remedy}, or leave features out"
            )
        factors.append(axes / np.sqrt(variances)[:, None])
        constants[code] -= 0.5 * np.log(variances).sum()
    spread = moments.total() / moments.weight.sum()
    return GaussianModel.of(task, moments.mean, np.stack(factors), constants, moments.center, spread)


def _spectrum(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances along the principal axes, and these as rows.

    By the singular values of a root of the covariance, made of the correlations: so that small variances beside
    large ones keep as many digits as in a decomposition of the rows.
    """
    scale = scales_of(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / scale[:, None] / scale)
    values = np.where(values > 8 * len(values) * EPS * np.max(values, initial=0.0), values, 0.0)
    _, sizes, axes = np.linalg.svd(np.sqrt(values)[:, None] * vectors.T * scale)
    return sizes * sizes, axes


def naive_bayes(
    params: NaiveBayes, task: Task, classes: Sequence[Any], passes: Passes, notes: list[str]
) -> GaussianModel:
    """Gaussian naive Bayes, smoothed by the largest variance (with weights, scikit-learn takes it without them).

    Raises
    ------
    DataError
        A feature does not vary in a class, and nothing smooths that.
    """
    moments = passes.classes(len(classes), "squares")
    check_classes(moments.weight, classes)
    priors, said = class_priors(params.priors, classes, moments.weight)
    notes += said
    spread = moments.total_squares() / moments.weight.sum()
    variances = moments.squares / moments.weight[:, None] + params.var_smoothing * spread.max()
    if not variances.all():
        raise DataError(
            f"{int((variances == 0).any(axis=0).sum())} features do not vary in some class, so that no other value "
            "would have a probability; raise var_smoothing, or leave them out"
        )
    constant = np.log(priors) - 0.5 * np.log(2.0 * np.pi * variances).sum(axis=1)
    return GaussianModel.of(task, moments.mean, 1.0 / np.sqrt(variances), constant, moments.center, spread)
