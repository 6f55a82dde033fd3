"""Logistic regression by Newton steps, each from one pass that gathers loss, gradient and Hessian.

Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 4.4.1, iteratively
reweighted least squares; step halving by Armijo's rule, and the decrement as Boyd and Vandenberghe, Convex
Optimization (2004), section 9.5. With many features and classes, where the Hessian would be the largest part of
the work, steps are those of L-BFGS: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.engine.exact.classes import check_classes, class_factors
from treadle.engine.exact.params import LogisticRegression
from treadle.engine.exact.solving import EPS, scales_of, solve_semidefinite
from treadle.engine.models.base import Task
from treadle.engine.models.linear import LinearModel
from treadle.engine.passes import Passes, Rows
from treadle.kernels.logistic import Curve, curve, merge_all

LARGEST_HESSIAN = 1000
"""Coefficients of all outputs up to which steps are Newton's."""
MEMORY = 10
"""Steps that L-BFGS remembers."""
LBFGS_TOL = 1e-6
"""L-BFGS goes on to this share of tol: it does not square, as Newton's steps do, what is left."""
LBFGS_STEPS = 20
"""Of these for each Newton step that is allowed."""
SUFFICIENT = 2.0**-11
"""Share of the decrease that a step promises which it must bring."""
HALVINGS = 30
NO_STEP = "a step of which no part lowers the loss as it should"
SLOW = 0.3
"""Newton steps near an optimum are each a small part of the one before; those towards infinity are not."""


def logistic_regression(
    params: LogisticRegression, task: Task, classes: Sequence[Any], passes: Passes, notes: list[str]
) -> LinearModel:
    """Minimises C times the sum of the rows' losses + half the squared coefficients; a pass before the steps."""
    moments = passes.classes(len(classes), "squares")
    check_classes(moments.weight, classes)
    factors = class_factors(params.class_weight, classes, moments.weight)
    center = moments.center
    squares = moments.total_squares() / moments.weight.sum()
    shift = center if params.fit_intercept else np.zeros(passes.features)
    scale = 1.0 / scales_of(squares if params.fit_intercept else squares + center * center)
    mass = factors * moments.weight
    free = params.penalty is None or params.C is None
    strength = 0.0 if free else 1.0 / (params.C * mass.sum())
    problem = Problem(passes, factors, shift, scale, mass.sum(), strength, params.fit_intercept)
    start = np.zeros((1 if task == "binary" else len(classes), passes.features + 1))
    if params.fit_intercept:
        share = np.log(mass)
        start[:, -1] = share[1] - share[0] if task == "binary" else share - share.mean()
    newton = start.size <= LARGEST_HESSIAN
    solve = _newton if newton else _lbfgs
    found = solve(problem, start, params.tol, params.max_iter if newton else LBFGS_STEPS * params.max_iter, notes)
    coefficients = found[:, :-1] * scale
    intercept = found[:, -1] - coefficients @ shift if params.fit_intercept else np.zeros(len(found))
    return LinearModel(task, "logistic" if task == "binary" else "softmax", coefficients, intercept, center)


@dataclass(frozen=True)
class Problem:
    """The mean loss with its penalty, as a function of the coefficients of features that are moved and scaled."""

    passes: Passes
    factors: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    mass: float
    """What all rows count."""
    strength: float
    intercept: bool

    @property
    def penalty(self) -> np.ndarray:
        """(features + 1,): what half the square of a coefficient costs, nothing for the intercept."""
        return np.append(self.strength * self.scale * self.scale, 0.0)

    def at(self, point: np.ndarray, hessian: bool = True) -> Curve:
        """Value, gradient and Hessian at (outputs, features + 1), from one pass."""
        found: Curve = self.passes.over(curve_of, merge_all, self.factors, self.shift, self.scale, point, hessian)
        penalty = self.penalty
        gradient = found.gradient / self.mass + penalty * point
        bent = found.hessian / self.mass
        if not self.intercept:
            gradient[:, -1] = 0.0
            bent[..., -1, :] = bent[..., :, -1] = 0.0
        for output in range(len(bent)):
            bent[output, output] += np.diag(penalty)
        return Curve(found.loss / self.mass + 0.5 * float((penalty * point * point).sum()), gradient, bent)


def curve_of(
    rows: Rows, factors: np.ndarray, shift: np.ndarray, scale: np.ndarray, point: np.ndarray, hessian: bool
) -> Curve:
    """On a worker."""
    return curve(rows.matrix, rows.target, rows.index, rows.weight, factors, shift, scale, point, hessian)


def _newton(problem: Problem, start: np.ndarray, tol: float, steps: int, notes: list[str]) -> np.ndarray:
    here, now = start, problem.at(start)
    before = math.inf
    for _ in range(steps):
        step = _newton_step(now, problem.strength == 0)
        decrement = -float((step * now.gradient).sum())
        rounding = 16 * EPS * abs(now.loss)
        if decrement / 2 <= max(tol, rounding):
            if problem.strength == 0 and decrement / 2 > rounding and decrement > SLOW**2 * before:
                notes.append(
                    "a class can be told apart without an error, or nearly, so that without a penalty coefficients "
                    "have no finite optimum and are as far as tol let them grow; set C"
                )
            # The step is known, and costs no other pass.
            return here + step
        before = decrement
        further = _searched(problem, here, now, step, True)
        if further is None:
            notes.append(_not_converged(decrement / 2, tol, NO_STEP))
            return here
        here, now = further
    left = -0.5 * float((_newton_step(now, problem.strength == 0) * now.gradient).sum())
    notes.append(_not_converged(left, tol, f"{steps} Newton steps (max_iter)"))
    return here


def _newton_step(now: Curve, free: bool) -> np.ndarray:
    """-gradient by the Hessian. Adding a number to all outputs makes no difference: it stays as it is.

    `free` says that coefficients are not penalised, so that this holds for each feature and not only the intercept.
    """
    outputs, m = now.gradient.shape
    bent = now.hessian
    if outputs > 1:
        level = np.einsum("aajj->j", bent) / outputs
        level[level == 0] = 1.0
        bent = bent + np.diag(level if free else np.append(np.zeros(m - 1), level[-1]))
    matrix = np.swapaxes(bent, 1, 2).reshape(outputs * m, outputs * m)
    found: np.ndarray = -solve_semidefinite(matrix, now.gradient.ravel()).reshape(outputs, m)
    return found


def _searched(
    problem: Problem, here: np.ndarray, now: Curve, step: np.ndarray, hessian: bool
) -> tuple[np.ndarray, Curve] | None:
    """The point after a step, halved until it brings enough; None when it never does."""
    slope = float((step * now.gradient).sum())
    for halving in range(HALVINGS):
        part = 0.5**halving
        trial = here + part * step
        there = problem.at(trial, hessian)
        # What the sum of the losses rounds off may be more than a last step brings.
        if there.loss <= now.loss + SUFFICIENT * part * slope + 8 * EPS * abs(now.loss):
            return trial, there
    return None


def _lbfgs(problem: Problem, start: np.ndarray, tol: float, steps: int, notes: list[str]) -> np.ndarray:
    here, now = start, problem.at(start, hessian=False)
    # The curvature where all coefficients are 0 makes features alike, however strong the penalty is on each.
    share = np.exp(start[:, -1:] - start[:, -1:].max())
    share = share / share.sum() if len(start) > 1 else 1 / (1 + np.exp(-start[:, -1:]))
    # It is the same for all outputs, so that steps, as gradients, sum to nothing over the outputs.
    bent = (share * (1 - share)).mean() + problem.penalty
    past: list[tuple[np.ndarray, np.ndarray, float]] = []
    decrement = math.inf
    for _ in range(steps):
        step = _remembered(now.gradient, past, bent)
        decrement = -float((step * now.gradient).sum())
        if decrement / 2 <= LBFGS_TOL * tol:
            return here + step
        further = _searched(problem, here, now, step, False)
        if further is None:
            if decrement / 2 > tol:
                notes.append(_not_converged(decrement / 2, tol, NO_STEP))
            return here
        moved, turned = further[0] - here, further[1].gradient - now.gradient
        if (product := float((moved * turned).sum())) > 0:
            past = [*past, (moved, turned, product)][-MEMORY:]
        here, now = further
    notes.append(_not_converged(decrement / 2, tol, f"{steps} steps of L-BFGS ({LBFGS_STEPS} * max_iter)"))
    return here


def _remembered(
    gradient: np.ndarray, past: Sequence[tuple[np.ndarray, np.ndarray, float]], bent: np.ndarray
) -> np.ndarray:
    """L-BFGS's direction: two loops over the steps that are remembered."""
    step = -gradient
    shares = []
    for moved, turned, product in reversed(past):
        shares.append(float((moved * step).sum()) / product)
        step = step - shares[-1] * turned
    step = step / bent
    if past:
        _, turned, product = past[-1]
        step = step * (product / float((turned * turned / bent).sum()))
    for (moved, turned, product), share in zip(past, reversed(shares), strict=True):
        step = step + moved * (share - float((turned * step).sum()) / product)
    return step


def _not_converged(left: float, tol: float, after: str) -> str:
    return (
        f"not converged after {after}: the next step would lower the mean loss by {left:.2g}, more than tol ({tol:g}); "
        "raise max_iter, or lower C"
    )
