"""Ensembles of what models predicted for rows of folds that they were not trained on.

The scores of an ensemble for the rows of a fold are those of weights, or of a meta model, that were fitted without
that fold. So none of them is chosen and measured on the same rows.

Sources: Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004; Wolpert,
"Stacked generalization", Neural Networks 5 (1992); van der Laan, Polley and Hubbard, "Super learner", Statistical
Applications in Genetics and Molecular Biology 6 (2007), for weights with the least cross-validated loss. For finding
them: Kraft, "A software package for sequential quadratic programming", DFVLR-FB 88-28 (1988), of log loss; Lawson and
Hanson, "Solving least squares problems" (1974), of squared error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from treadle.engine.exact.fit import fit
from treadle.engine.job import LOWER_IS_BETTER
from treadle.engine.job import Model as ModelConfig
from treadle.engine.measuring import TASKS, metrics_from
from treadle.engine.models.base import Task
from treadle.engine.models.combination import Average, Combination, Stacked, meta_features
from treadle.engine.models.linear import LinearModel
from treadle.engine.passes import OverRows, Rows
from treadle.engine.sections.ensemble import Ensemble

TINY = 1e-4
"""A model whose weight in a blend is less is left out: it would be trained for next to nothing."""
MOST_ROWS = 50_000
"""Rows that the greedy selection looks at: it computes the metric for every model in every step."""
EPS = float(np.finfo(np.float64).eps)
SMALL = 1e-8
"""Residuals are in units of the best model's, or of this part of the worst one's where that is larger."""
FTOL = 1e-13


@dataclass(frozen=True, eq=False)
class Library:
    """Models to choose from, by their scores out of folds."""

    task: Task
    classes: tuple[Any, ...]
    """In the order of their codes; none for numbers."""
    scores: tuple[tuple[np.ndarray, ...], ...]
    """By model and fold: float64 (rows,) or (rows, classes), probabilities or values."""
    targets: tuple[np.ndarray, ...]
    """By fold: float64 (rows,), codes of classes or values."""

    def without(self, fold: int) -> Library:
        return replace(
            self,
            scores=tuple(own[:fold] + own[fold + 1 :] for own in self.scores),
            targets=self.targets[:fold] + self.targets[fold + 1 :],
        )

    def thinned(self, most: int) -> Library:
        """With at most so many rows, as evenly spread over folds and rows as whole steps allow."""
        step = -(-sum(map(len, self.targets)) // most)
        thin = [tuple(part[::step] for part in own) for own in (*self.scores, self.targets)]
        return self if step == 1 else replace(self, scores=tuple(thin[:-1]), targets=thin[-1])

    def of_fold(self, fold: int) -> list[np.ndarray]:
        """Scores of the rows of a fold, by model."""
        return [own[fold] for own in self.scores]

    @property
    def whole(self) -> list[np.ndarray]:
        """Scores of the rows of all folds, by model."""
        return [np.concatenate(own) for own in self.scores]

    @property
    def target(self) -> np.ndarray:
        return np.concatenate(self.targets)


@dataclass(frozen=True)
class Measure:
    """What the best model is chosen by."""

    metric: str
    task: Task
    threshold: float

    def metrics(self, score: np.ndarray, target: np.ndarray) -> dict[str, float]:
        """All metrics of scores of some rows."""
        labels = target if self.task == "regression" else target.astype(np.int64)
        return metrics_from(TASKS[self.task][0](score, labels), self.task, True, self.threshold)

    def worth(self, scores: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> float:
        """The mean of the metric over folds, as the leaderboard has it, turned so that more is better."""
        found = [self.metrics(score, target)[self.metric] for score, target in zip(scores, targets, strict=True)]
        mean = sum(found) / len(found)
        if math.isnan(mean):
            return -math.inf
        return -mean if self.metric in LOWER_IS_BETTER else mean


def combine(ensemble: Ensemble, library: Library, measure: Measure) -> Combination:
    """The combination of the library's models that the spec asks for.

    Raises
    ------
    DataError
        Of a stack: the rows lack a class.
    """
    if ensemble.kind == "stack":
        return Stacked(stack(library))
    if ensemble.kind == "blend":
        return Average(blend(library))
    counts = greedy(library, measure, ensemble.steps)
    return Average(counts / counts.sum(), int(counts.sum()))


def combine_without(ensemble: Ensemble, library: Library, measure: Measure, fold: int | None) -> Combination:
    """The combination that is made without a fold; of all of them when None. Raises as `combine`."""
    return combine(ensemble, library if fold is None else library.without(fold), measure)


def greedy(library: Library, measure: Measure, steps: int) -> np.ndarray:
    """How often each model is selected, float64 (models,), by selection with replacement.

    The first to be selected is the best model; each step adds the one with which the average of all that were
    selected has the best metric. What is kept is the best of the ensembles after each step, the smallest of equally
    good ones. Of models that are equally good to add, the one that is better by itself is added, and of these the
    first. Of more than `MOST_ROWS` rows it looks at every second, third or so on.
    """
    library = library.thinned(MOST_ROWS)
    single = np.array([measure.worth(own, library.targets) for own in library.scores])
    order = np.argsort(-single, kind="stable")
    counts = np.zeros(len(order))
    counts[order[0]] = 1
    total = list(library.scores[order[0]])
    best, kept = single[order[0]], counts.copy()
    for size in range(2, steps + 1):
        worths = [
            measure.worth([(t + s) / size for t, s in zip(total, library.scores[m], strict=True)], library.targets)
            for m in order
        ]
        place = int(np.argmax(worths))
        added = order[place]
        counts[added] += 1
        total = [t + s for t, s in zip(total, library.scores[added], strict=True)]
        if worths[place] > best:
            best, kept = worths[place], counts.copy()
    return kept


def blend(library: Library) -> np.ndarray:
    """Weights float64 (models,), not negative and of sum 1, with the least log loss or squared error of the average.

    The loss is convex in the weights. Models with less than `TINY` are left out, and the others weighed again.
    """
    columns = np.stack(_of_actual(library), axis=1)
    weights = np.zeros(columns.shape[1])
    kept = np.arange(columns.shape[1])
    while True:
        found = _least_loss(columns[:, kept], library.task)
        large = found >= TINY
        if large.all():
            weights[kept] = found / found.sum()
            return weights
        kept = kept[large]


def _of_actual(library: Library) -> list[np.ndarray]:
    """By model (rows,): the probability of the class that a row has, or the residual."""
    target = library.target
    if library.task == "regression":
        return [score - target for score in library.whole]
    if library.task == "binary":
        return [np.where(target == 1, score, 1.0 - score) for score in library.whole]
    codes = target.astype(np.int64)[:, None]
    return [np.take_along_axis(score, codes, axis=1)[:, 0] for score in library.whole]


def _least_loss(columns: np.ndarray, task: Task) -> np.ndarray:
    """Weights (models,) of the columns of `_of_actual`, of sum 1."""
    if columns.shape[1] == 1:
        return np.ones(1)
    weights = _least_squares(columns) if task == "regression" else _least_log_loss(columns)
    return np.asarray(weights / weights.sum())


def _least_squares(residuals: np.ndarray) -> np.ndarray:
    """Proportional to the weights (models,) with the least squared error, by non-negative least squares.

    As weights w add up to 1, the residual of the average is the average of the residuals, R w. The least of
    |R v|^2 + (sum(v) - 1)^2 over v = s w is q / (q + 1) with q = |R w|^2, at s = 1 / (q + 1). It grows with q, so that
    the best v is the best w times a number. Sequential quadratic programming ends too early where the residuals of
    some models are many times those of others.
    """
    from scipy.optimize import nnls

    # The triangle has the same products as the rows, without the loss of digits that squaring them would have.
    triangle = np.asarray(np.linalg.qr(residuals, mode="r"), dtype=np.float64)
    sizes = np.linalg.norm(triangle, axis=0)
    triangle = triangle / (max(sizes.min(), SMALL * sizes.max()) or 1.0)
    system = np.vstack([triangle, np.ones(triangle.shape[1])])
    return np.asarray(nnls(system, np.append(np.zeros(len(triangle)), 1.0), maxiter=100 * system.shape[1])[0])


def _least_log_loss(probabilities: np.ndarray) -> np.ndarray:
    """Weights (models,) with the least log loss, by sequential quadratic programming from equal weights."""
    from scipy.optimize import minimize

    models = probabilities.shape[1]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        p = np.maximum(probabilities @ w, EPS)
        return float(-np.log(p).mean()), -(probabilities / p[:, None]).mean(axis=0)

    found = minimize(
        loss,
        np.full(models, 1.0 / models),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * models,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones_like(w)},
        options={"ftol": FTOL, "maxiter": 1000},
    )
    return np.clip(found.x, 0.0, None)


def stack(library: Library) -> LinearModel:
    """The meta model: logistic regression of the models' log-odds with C 1, or ridge regression of their values.

    The ridge's penalty is 1 in units of the target's variance, so that it is the same in whatever unit values are.

    Raises
    ------
    DataError
        The rows lack a class.
    """
    matrix, target, task = meta_features(library.task, library.whole), library.target, library.task
    config = ModelConfig(name="ridge" if task == "regression" else "logistic_regression")
    if task != "regression":
        return _fitted(config, task, library.classes, matrix, target)
    center, scale = target.mean(), target.std() or 1.0
    meta = _fitted(config, task, (), (matrix - center) / scale, (target - center) / scale)
    intercept = center + scale * meta.intercept - center * meta.coefficients.sum(axis=1)
    return LinearModel(task, "identity", meta.coefficients, intercept, matrix.mean(axis=0))


def _fitted(config: ModelConfig, task: Task, classes: Sequence[Any], matrix: np.ndarray, target: np.ndarray) -> Any:
    rows = Rows(np.ascontiguousarray(matrix, dtype=np.float32), target, np.arange(len(target)))
    return fit(config, task, classes, OverRows([rows]))[0]
