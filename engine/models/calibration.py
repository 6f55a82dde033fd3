"""Calibration: probabilities made of a model's margins or scores, as they came true for rows it was not trained on.

It is fitted on out-of-fold margins and scores, saved with the model, and applied after it. Margins and contributions
stay those of the model.

Sources: Platt, "Probabilistic outputs for support vector machines and comparisons to regularized likelihood methods",
Advances in Large Margin Classifiers (1999); Lin, Lin and Weng, "A note on Platt's probabilistic outputs for support
vector machines", Machine Learning 68 (2007); Zadrozny and Elkan, "Transforming classifier scores into accurate
multiclass probability estimates", KDD 2002, for isotonic regression and for one class against the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from treadle.errors import DataError

Kind = Literal["sigmoid", "isotonic"]
MOST_STEPS = 100
CONVERGED = 1e-14
"""Newton's last step is the one that the loss promises to fall by less than this part of itself."""
FEWEST_HALVINGS = 2.0**-40


def logistic(margin: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-margin)), which overflows for no margin."""
    return np.exp(-np.logaddexp(0.0, -margin))


@dataclass(frozen=True)
class Sigmoid:
    """The probability of a class is logistic(slope * (margin - center) + intercept).

    Platt's A is -slope, and his B is slope * center - intercept; with the center no digits are lost where margins lie
    far from 0 and close together.
    """

    slope: float
    center: float
    intercept: float

    def apply(self, margin: np.ndarray, score: np.ndarray) -> np.ndarray:
        return logistic(self.slope * (margin - self.center) + self.intercept)

    def document(self) -> dict[str, Any]:
        return {"slope": self.slope, "center": self.center, "intercept": self.intercept}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Sigmoid:
        found = [float(document[name]) for name in ("slope", "center", "intercept")]
        if not np.isfinite(found).all():
            raise ValueError("the numbers of a sigmoid must be finite")
        return cls(*found)


@dataclass(frozen=True, eq=False)
class Isotonic:
    """The probability of a class is linear in its score between knots, and that of the nearest knot beyond them."""

    scores: np.ndarray
    """float64 (knots,), ascending."""
    probabilities: np.ndarray
    """float64 (knots,), never falling, from 0 to 1."""

    def apply(self, margin: np.ndarray, score: np.ndarray) -> np.ndarray:
        return np.interp(score, self.scores, self.probabilities)

    def document(self) -> dict[str, Any]:
        return {"scores": self.scores.tolist(), "probabilities": self.probabilities.tolist()}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Isotonic:
        scores = np.asarray(document["scores"], dtype=np.float64)
        probabilities = np.asarray(document["probabilities"], dtype=np.float64)
        alike = scores.ndim == 1 and len(scores) > 0 and scores.shape == probabilities.shape
        if not alike or not (np.diff(scores) > 0).all() or not (np.diff(probabilities) >= 0).all():
            raise ValueError("an isotonic curve needs knots of ascending scores and probabilities")
        if not (probabilities[0] >= 0 and probabilities[-1] <= 1):
            raise ValueError("probabilities of an isotonic curve must be from 0 to 1")
        return cls(scores, probabilities)


CURVES: Mapping[str, type[Sigmoid] | type[Isotonic]] = {"sigmoid": Sigmoid, "isotonic": Isotonic}


@dataclass(frozen=True)
class Calibration:
    """One curve for the positive class of two; of several classes one each, whose values are made to add up to 1."""

    kind: Kind
    curves: tuple[Sigmoid | Isotonic, ...]

    def apply(self, margin: np.ndarray, score: np.ndarray) -> np.ndarray:
        """float64 probabilities of a model's margins and scores, all of them (rows,) or (rows, classes).

        A row's are the same whatever rows are beside it. A row to which all curves give 0 gets the same
        probability for every class.
        """
        if margin.ndim == 1:
            return self.curves[0].apply(margin, score)
        pairs = enumerate(self.curves)
        found = np.stack([curve.apply(margin[:, code], score[:, code]) for code, curve in pairs], axis=1)
        total = found.sum(axis=1, keepdims=True)
        return np.divide(found, total, out=np.full_like(found, 1.0 / len(self.curves)), where=total > 0)

    def document(self) -> dict[str, Any]:
        """For `of`, of what JSON has."""
        return {"kind": self.kind, "curves": [curve.document() for curve in self.curves]}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Calibration:
        """KeyError, TypeError or ValueError for anything that `document` did not make."""
        curve = CURVES[document["kind"]]
        return cls(document["kind"], tuple(curve.of(one) for one in document["curves"]))


def fit_calibration(kind: Kind, margin: np.ndarray, score: np.ndarray, labels: np.ndarray) -> Calibration:
    """The calibration of two or several classes, of several each against the rest.

    Parameters
    ----------
    margin, score
        float64 (rows,), or (rows, classes) of several classes, each row's of a model that was not trained on it.
    labels
        int (rows,), codes of classes; of two the positive one is 1.

    Raises
    ------
    DataError
        There are no rows, or margins or scores that are not finite.
    """
    if margin.ndim == 1:
        return Calibration(kind, (_fit(kind, margin, score, labels == 1),))
    classes = range(margin.shape[1])
    return Calibration(kind, tuple(_fit(kind, margin[:, k], score[:, k], labels == k) for k in classes))


def _fit(kind: Kind, margin: np.ndarray, score: np.ndarray, positive: np.ndarray) -> Sigmoid | Isotonic:
    return fit_sigmoid(margin, positive) if kind == "sigmoid" else fit_isotonic(score, positive)


def fit_sigmoid(margin: np.ndarray, labels: np.ndarray) -> Sigmoid:
    """Platt's sigmoid of margins (rows,) and labels (rows,), which are 0 or 1, by Newton's method with halved steps.

    It is fitted to targets a little inside of 0 and 1, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that there is a finite
    optimum for any rows. The slope is negative where higher margins were less often positive, and 0 for equal margins.

    Raises
    ------
    DataError
        As `fit_calibration`.
    """
    margin = _finite(margin, "margins")
    positive = np.asarray(labels) == 1
    ones = int(positive.sum())
    zeros = len(positive) - ones
    target = np.where(positive, (ones + 1.0) / (ones + 2.0), 1.0 / (zeros + 2.0))
    center = float(margin.mean())
    x = margin - center
    at = np.array([0.0, np.log((ones + 1.0) / (zeros + 1.0))])
    loss = _loss(at, x, target)
    for _ in range(MOST_STEPS):
        step, fall = _newton_step(at, x, target)
        if fall <= CONVERGED * loss:
            at = at + step
            break
        size = 1.0
        while (found := _loss(at + size * step, x, target)) > loss - 1e-4 * size * fall and size > FEWEST_HALVINGS:
            size /= 2
        if found >= loss:
            break
        at, loss = at + size * step, found
    return Sigmoid(float(at[0]), center, float(at[1]))


def _loss(at: np.ndarray, x: np.ndarray, target: np.ndarray) -> float:
    """Cross entropy, summed over the rows, of the sigmoid with slope and intercept `at`."""
    u = at[0] * x + at[1]
    return float((np.logaddexp(0.0, u) - target * u).sum())


def _newton_step(at: np.ndarray, x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """The step from `at`, (2,), and by how much the loss falls along it to first order."""
    p = logistic(at[0] * x + at[1])
    weight = p * (1.0 - p)
    error = p - target
    gradient = np.array([float(error @ x), float(error.sum())])
    total = float(weight.sum())
    if total == 0.0:
        return np.zeros(2), 0.0
    # The slope's curvature about the mean by weight, without the difference of two large numbers.
    mean = float(weight @ x) / total
    curvature = float(weight @ (x - mean) ** 2)
    slope = -(gradient[0] - mean * gradient[1]) / curvature if curvature > 0.0 else 0.0
    step = np.array([slope, -gradient[1] / total - mean * slope])
    return step, float(-(gradient @ step))


def fit_isotonic(score: np.ndarray, labels: np.ndarray) -> Isotonic:
    """The curve that never falls with the least squared error to labels (rows,), 0 or 1, by scores (rows,).

    Raises
    ------
    DataError
        As `fit_calibration`.
    """
    from sklearn.isotonic import IsotonicRegression

    score = _finite(score, "scores")
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, np.asarray(labels) == 1)
    return Isotonic(fitted.X_thresholds_.astype(np.float64), fitted.y_thresholds_.astype(np.float64))


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        raise DataError(f"decision.calibrate: there are no out-of-fold {name} to calibrate by.")
    wrong = ~np.isfinite(found)
    if wrong.any():
        raise DataError(
            f"decision.calibrate: {int(wrong.sum())} of {len(found)} out-of-fold {name} are not finite, the first is "
            f"{found[wrong][0]}; such a model cannot be calibrated. Scale its features, or leave calibrate out."
        )
    return found
