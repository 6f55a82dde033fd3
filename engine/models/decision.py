"""Which score makes a row positive: a threshold chosen by a metric or by what errors cost.

A cut says that the rows with the scores above it are positive. All cuts between distinct scores are looked at, and
the one with the best metric or the least expected cost is chosen, in exact counts of rows.

Source of thresholds by costs: Elkan, "The foundations of cost-sensitive learning", IJCAI 2001. With calibrated scores
the best threshold is false_positive / (false_positive + false_negative); here it is what costs least on the rows.
"""

from __future__ import annotations

import numpy as np

from treadle.engine.job import THRESHOLD, Job
from treadle.engine.models.base import Task
from treadle.engine.models.calibration import Calibration, fit_calibration
from treadle.engine.sections.decision import Costs, Decision, ThresholdMetric
from treadle.errors import DataError, RequestError
from treadle.kernels.metrics import ScoreTable, score_table

EVERY_ROW = -1.0
"""The threshold below a lowest score of 0, which no threshold from 0 to 1 would call positive."""
TIED = 1e-12
"""Values of a metric that differ by less than this part of the best are equal: they may differ in rounding."""


def check_decision(job: Job, task: Task | None, has_folds: bool) -> None:
    """Refuses a decision that the job cannot make; `task` is None while it is not known.

    Raises
    ------
    RequestError
        Numbers have no decision, several classes no threshold, and what is fitted or chosen needs out-of-fold scores.
    """
    decision = job.decision
    if decision == Decision() or not job.models:
        return
    if task == "regression":
        raise RequestError(
            f"decision: it is for classes, and the target '{job.data.target}' asks for numbers. Leave it out, or set "
            "data.task: classification."
        )
    if task == "multiclass" and decision.threshold is not None:
        raise RequestError(
            f"decision.threshold: it is for two classes, and the target '{job.data.target}' has more, of which the "
            "most probable is predicted. Leave it out, or derive a target of two classes in tables."
        )
    if decision.needs_folds and not has_folds:
        key = "calibrate" if decision.calibrate is not None else "threshold"
        raise RequestError(
            f"decision.{key}: it is made of scores of rows that a model was not trained on, so it needs folds. Add "
            "compare: {folds: 10}, or leave it out."
        )


def decide(
    decision: Decision, task: Task, margin: np.ndarray, score: np.ndarray, labels: np.ndarray
) -> tuple[Calibration | None, float]:
    """The calibration and the threshold of a model by its out-of-fold margins and scores.

    First the calibration is fitted; then the threshold is chosen among the calibrated scores of the same rows. So the
    metric or cost at the threshold is a little too good on these rows; what it is worth the test rows tell.

    Parameters
    ----------
    margin, score
        float64 (rows,), or (rows, classes) of several classes, each row's of a model that was not trained on it.
    labels
        int (rows,), codes of classes; of two the positive one is 1.

    Raises
    ------
    DataError
        There are no rows or, for a threshold, rows of one class only; or margins or scores that are not finite.
    """
    if task == "regression":
        return None, THRESHOLD
    calibration = None
    if decision.calibrate is not None:
        calibration = fit_calibration(decision.calibrate, margin, score, labels)
        score = calibration.apply(margin, score)
    if task == "multiclass" or decision.threshold is None:
        return calibration, THRESHOLD
    if isinstance(decision.threshold, float):
        return calibration, decision.threshold
    return calibration, choose_threshold(score_table(score, labels), decision.threshold)


def choose_threshold(table: ScoreTable, by: ThresholdMetric | Costs) -> float:
    """The threshold with the best metric, or with the least expected cost, on rows of two classes.

    It lies halfway between two neighbouring distinct scores, of which the upper one is positive; below the lowest
    score halfway to 0 (`EVERY_ROW` where that score is 0) and above the highest halfway to 1. Of equally good ones it
    is the nearest to 0.5, of two equally near ones the lower.

    Raises
    ------
    DataError
        There is no row, or none of one of the classes.
    """
    if not table.positives.any() or not table.negatives.any():
        found = "rows of one class only" if table.rows else "no rows"
        raise DataError(f"decision.threshold: there are {found} to choose it by; both classes are needed.")
    values = -_costs(table, by) if isinstance(by, Costs) else _metric(table, by)
    best = values.max()
    tied = np.flatnonzero(values >= best - TIED * abs(best))
    thresholds = _thresholds(table)[tied]
    return float(thresholds[np.argmin(np.abs(thresholds - 0.5))])


def _thresholds(table: ScoreTable) -> np.ndarray:
    """float64 (scores + 1,), ascending: the i-th has i distinct scores below it."""
    lower = np.concatenate([[0.0], table.scores])
    upper = np.concatenate([table.scores, [1.0]])
    middle = lower + (upper - lower) / 2
    # There may be no number between two neighbours.
    found = np.where(middle < upper, middle, lower)
    if table.scores[0] == 0.0:
        found[0] = EVERY_ROW
    return found


def _counts(table: ScoreTable) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by cut, each int64 (scores + 1,): true positives, false positives, false negatives, true negatives."""
    fn = np.concatenate([[0], np.cumsum(table.positives)])
    tn = np.concatenate([[0], np.cumsum(table.negatives)])
    return fn[-1] - fn, tn[-1] - tn, fn, tn


def _metric(table: ScoreTable, name: ThresholdMetric) -> np.ndarray:
    """float64 (scores + 1,): the metric at each cut, as `treadle.kernels.metrics.binary_metrics` has it.

    Both classes have rows, so that kappa and f1 are defined; counts multiply in int64, for up to 2**31 rows.
    """
    tp, fp, fn, tn = _counts(table)
    if name == "accuracy":
        return (tp + tn) / table.rows
    if name == "f1":
        return 2 * tp / (2 * tp + fp + fn)
    covariance = tp * tn - fp * fn
    if name == "kappa":
        return 2 * covariance / ((tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))
    spread = np.sqrt((tp + fp) * (fn + tn)) * np.sqrt((tp + fn) * (fp + tn))
    return np.divide(covariance, spread, out=np.zeros(len(tp)), where=spread > 0)


def _costs(table: ScoreTable, costs: Costs) -> np.ndarray:
    """float64 (scores + 1,): the mean cost of a row at each cut."""
    _, fp, fn, _ = _counts(table)
    return (fp * costs.false_positive + fn * costs.false_negative) / table.rows
