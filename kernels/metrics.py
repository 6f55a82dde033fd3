"""How good predictions are, from tables that parts of a test set gather and that merge exactly.

Every table holds integers (or integers and the distinct scores), so the merged table, and with it
every metric, is the same for every partitioning and order of merges. The definitions, edge cases
included, are scikit-learn's unless a docstring says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import DataError
from treadle.kernels.exact import UNITS_PER_ONE, exact_sum, exact_sum_of_squares

_EPS = float(np.finfo(np.float64).eps)
# Probabilities computed in float32 may leave [0, 1] by a few roundings; these are put back.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Distinct scores of a two-class test set, and how many rows of each class have each score.

    `scores`: sorted unique float64, in [0, 1] where they are probabilities; `positives`, `negatives`:
    int64, same length. At most 24 bytes a row of the test set, less when scores repeat.
    """

    scores: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """How many rows were scored."""
        return int(self.positives.sum() + self.negatives.sum())


@dataclass(frozen=True, eq=False)
class ClassTable:
    """What is known about a test set of k classes.

    `confusion`: int64 (k, k), rows of actual class i for which class j was most probable (the first
    such class at a tie); `by_class`: for every class, the scores of that class against the rest.
    The log loss and the Brier score follow from `by_class`, so no sum of floats is carried.
    """

    confusion: NDArray[np.int64]
    by_class: tuple[ScoreTable, ...]

    @property
    def rows(self) -> int:
        """How many rows were scored."""
        return int(self.confusion.sum())


@dataclass(frozen=True)
class ErrorTable:
    """Sums over a regression's test set; the last four are exact, in units of 2**-1074 (see exact.py)."""

    rows: int
    squared_error: int
    absolute_error: int
    target: int
    target_squared: int


def score_table(scores: NDArray[Any], labels: NDArray[Any], probabilities: bool = True) -> ScoreTable:
    """The table of probabilities of the positive class (n,) and labels (n,) that are 0 or 1.

    Raises DataError for a missing score, one outside [0, 1], or another label. Scores outside by at
    most 1e-6, a rounding, are clipped. Scores that are no `probabilities` are any finite numbers, the
    higher the more positive.
    """
    scores = _probabilities(scores) if probabilities else _margins(scores)
    positive = _flags(labels, "labels")
    _same_rows(scores, positive)
    hits = positive.astype(np.int64)
    return _tabulated(scores, hits, 1 - hits)


def merge_score_tables(tables: Sequence[ScoreTable]) -> ScoreTable:
    """The table of all parts' rows; of no parts, the table without rows."""
    if not tables:
        return score_table(np.empty(0), np.empty(0))
    return _tabulated(
        np.concatenate([table.scores for table in tables]),
        np.concatenate([table.positives for table in tables]),
        np.concatenate([table.negatives for table in tables]),
    )


def binary_metrics(table: ScoreTable, threshold: float | None = None, probabilities: bool = True) -> dict[str, float]:
    """Metrics of a two-class test set in which a score above `threshold` predicts the positive class.

    The threshold is 0.5 when absent, and 0 for scores that are no `probabilities`, which have no
    log_loss and no brier.

    Keys: accuracy, auc, average_precision, recall, precision, f1, kappa (Cohen), mcc (Matthews),
    log_loss (nats, scores clipped to [eps, 1 - eps] of float64), brier (0 to 1). A recall, precision,
    f1, mcc or average_precision without denominator is 0.0. With rows of one class only, auc is NaN,
    and kappa is NaN when they are all predicted as that class. Raises DataError without rows.
    """
    rows = _some_rows(table.rows)
    above = table.scores > ((0.5 if probabilities else 0.0) if threshold is None else threshold)
    tp, fp = int(table.positives[above].sum()), int(table.negatives[above].sum())
    fn, tn = int(table.positives.sum()) - tp, int(table.negatives.sum()) - fp
    kappa, mcc = _agreement([[tn, fp], [fn, tp]])
    found = {
        "accuracy": (tp + tn) / rows,
        "auc": _auc(table),
        "average_precision": _average_precision(table),
        "recall": _ratio(tp, tp + fn),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "kappa": kappa,
        "mcc": mcc,
    }
    if probabilities:
        found["log_loss"] = (_positive_log_loss(table) + _negative_log_loss(table)) / rows
        found["brier"] = _squared_errors(table) / rows
    return found


def calibration(table: ScoreTable, bins: int = 10) -> list[dict[str, float | None]]:
    """Reliability in `bins` intervals of equal width, [lower, upper), the last one closed.

    Each: lower, upper, count (rows), mean_score, positive_rate (share of rows that are positive);
    the last two are None where no row falls. A calibrated model has positive_rate near mean_score.
    """
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, table.scores, side="right") - 1, 0, bins - 1)
    counts = table.positives + table.negatives
    found: list[dict[str, float | None]] = []
    for i in range(bins):
        inside = place == i
        count, hits = int(counts[inside].sum()), int(table.positives[inside].sum())
        score_sum = float((table.scores[inside] * counts[inside]).sum())
        found.append(
            {
                "lower": float(edges[i]),
                "upper": float(edges[i + 1]),
                "count": count,
                "mean_score": score_sum / count if count else None,
                "positive_rate": hits / count if count else None,
            }
        )
    return found


def expected_calibration_error(table: ScoreTable, bins: int = 10) -> float:
    """Mean over rows of |positive rate - mean score| of the row's bin; 0 means calibrated.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015. Raises DataError without rows.
    """
    rows = _some_rows(table.rows)
    gaps = 0.0
    for part in calibration(table, bins):
        count, score, rate = part["count"], part["mean_score"], part["positive_rate"]
        if count is not None and score is not None and rate is not None:
            gaps += count * abs(rate - score)
    return gaps / rows


def class_table(scores: NDArray[Any], labels: NDArray[Any], probabilities: bool = True) -> ClassTable:
    """The table of probabilities (n, k) and labels (n,), whole numbers from 0 to k - 1.

    Raises DataError for a missing probability, one outside [0, 1] (a rounding of 1e-6 is clipped), or
    a label outside the classes. Scores that are no `probabilities` are any finite numbers.
    """
    matrix = _probabilities(scores) if probabilities else _margins(scores)
    classes = matrix.shape[1]
    actual = _codes(labels, classes, "labels")
    _same_rows(matrix, actual)
    cells = actual * classes + matrix.argmax(axis=1)
    confusion = np.bincount(cells, minlength=classes * classes).reshape(classes, classes)
    by_class = tuple(score_table(matrix[:, j], actual == j, probabilities) for j in range(classes))
    return ClassTable(confusion.astype(np.int64), by_class)


def merge_class_tables(tables: Sequence[ClassTable]) -> ClassTable:
    """The table of all parts' rows, from at least one part; all must have the same classes."""
    sizes = sorted({len(table.by_class) for table in tables})
    if len(sizes) != 1:
        raise ValueError(f"class tables merge when all have as many classes; these have {sizes}")
    by_class = tuple(merge_score_tables([table.by_class[j] for table in tables]) for j in range(sizes[0]))
    return ClassTable(np.sum([table.confusion for table in tables], axis=0), by_class)


def multiclass_metrics(table: ClassTable, probabilities: bool = True) -> dict[str, float]:
    """Metrics of a test set of several classes, in which the most probable class is predicted.

    Keys as in `binary_metrics`, without log_loss and brier where scores are no `probabilities`, of
    which the highest decides. recall, precision and f1 are macro averages over the classes that
    occur among the labels or the predictions (0.0 for a class without denominator). auc and
    average_precision are one-vs-rest macro averages over the classes that occur among the labels: a
    class without a row in the test set has no ranking to judge; auc is NaN when only one occurs. mcc
    is Gorodkin's R_K. brier is the mean over rows of the squared errors summed over classes (0 to 2).
    Raises DataError without rows.

    Source of mcc: Gorodkin, "Comparing two K-category assignments by a K-category correlation
    coefficient", Computational Biology and Chemistry 28 (2004), equation 8.
    """
    rows = _some_rows(table.rows)
    hits = np.diagonal(table.confusion)
    actual, predicted = table.confusion.sum(axis=1), table.confusion.sum(axis=0)
    named = (actual + predicted) > 0
    kappa, mcc = _agreement(table.confusion.tolist())
    occurring = [one for one, count in zip(table.by_class, actual.tolist(), strict=True) if count]
    found = {
        "accuracy": int(hits.sum()) / rows,
        "auc": sum(_auc(one) for one in occurring) / len(occurring),
        "average_precision": sum(_average_precision(one) for one in occurring) / len(occurring),
        "recall": _macro(hits[named], actual[named]),
        "precision": _macro(hits[named], predicted[named]),
        "f1": _macro(2 * hits[named], (actual + predicted)[named]),
        "kappa": kappa,
        "mcc": mcc,
    }
    if probabilities:
        found["log_loss"] = sum(_positive_log_loss(one) for one in table.by_class) / rows
        found["brier"] = sum(_squared_errors(one) for one in table.by_class) / rows
    return found


def error_table(predicted: NDArray[Any], target: NDArray[Any]) -> ErrorTable:
    """The table of predictions (n,) and targets (n,).

    Raises DataError unless all are finite and below 1e150 in magnitude, so that squares stay finite.
    """
    estimates = np.asarray(predicted, dtype=np.float64)
    wanted = np.asarray(target, dtype=np.float64)
    _same_rows(estimates, wanted)
    for name, numbers in (("Predictions", estimates), ("Targets", wanted)):
        wrong = ~(np.abs(numbers) < 1e150)
        if wrong.any():
            raise DataError(
                f"{name} must be finite and below 1e150 to be evaluated; {int(wrong.sum())} of "
                f"{numbers.size} are not, the first is {numbers[wrong][0]}."
            )
    errors = estimates - wanted
    return ErrorTable(
        rows=wanted.size,
        squared_error=exact_sum(errors * errors),
        absolute_error=exact_sum(np.abs(errors)),
        target=exact_sum(wanted),
        target_squared=exact_sum_of_squares(wanted),
    )


def merge_error_tables(tables: Sequence[ErrorTable]) -> ErrorTable:
    """The table of all parts' rows; of no parts, the table without rows."""
    return ErrorTable(
        rows=sum(table.rows for table in tables),
        squared_error=sum(table.squared_error for table in tables),
        absolute_error=sum(table.absolute_error for table in tables),
        target=sum(table.target for table in tables),
        target_squared=sum(table.target_squared for table in tables),
    )


def regression_metrics(table: ErrorTable) -> dict[str, float]:
    """rmse and mae, in the target's unit, and r2, the share of the target's variance explained.

    r2 for a constant target (and so for a single row, where scikit-learn says NaN) is 1.0 without
    errors and else 0.0. Errors and targets under about 1e-154 count as zero, because their squares
    are no float64. Raises DataError without rows.
    """
    rows = _some_rows(table.rows)
    # In units of 2**-2148: rows times the sum of squared deviations from the mean target.
    spread = max(rows * table.target_squared * UNITS_PER_ONE - table.target * table.target, 0)
    r2 = 0.0 if table.squared_error else 1.0
    if spread:
        r2 = 1.0 - table.squared_error * UNITS_PER_ONE * rows / spread
    return {
        "rmse": math.sqrt(table.squared_error / (UNITS_PER_ONE * rows)),
        "mae": table.absolute_error / (UNITS_PER_ONE * rows),
        "r2": r2,
    }


def group_counts(
    labels: NDArray[Any], predicted: NDArray[Any], groups: NDArray[Any], n_groups: int
) -> NDArray[np.int64]:
    """Rows by group, label and prediction: int64 (n_groups, 2, 2); counts of parts are added.

    `labels` and `predicted` (n,) are 0 or 1, `groups` (n,) whole numbers from 0 to n_groups - 1.
    Raises DataError for anything else.
    """
    actual, said = _flags(labels, "labels"), _flags(predicted, "predictions")
    codes = _codes(groups, n_groups, "groups")
    _same_rows(actual, said)
    _same_rows(actual, codes)
    cells = codes * 4 + actual * 2 + said
    return np.bincount(cells, minlength=n_groups * 4).reshape(n_groups, 2, 2).astype(np.int64)


def group_rates(counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Rates of one group from its counts (2, 2) by label and prediction; undefined rates are None.

    n (rows), selection_rate (share predicted positive), tpr (share of positives predicted positive),
    fpr (share of negatives predicted positive), accuracy.
    """
    (tn, fp), (fn, tp) = np.asarray(counts).tolist()
    n = tn + fp + fn + tp
    return {
        "n": n,
        "selection_rate": (tp + fp) / n if n else None,
        "tpr": tp / (tp + fn) if tp + fn else None,
        "fpr": fp / (fp + tn) if fp + tn else None,
        "accuracy": (tp + tn) / n if n else None,
    }


def _tabulated(scores: NDArray[np.float64], positives: NDArray[np.int64], negatives: NDArray[np.int64]) -> ScoreTable:
    """The table of scores in any order, repeats allowed, each with its numbers of rows."""
    if scores.size == 0:
        return ScoreTable(scores, positives, negatives)
    # Stable sorting merges runs that are sorted already, which the tables of parts are.
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    return ScoreTable(
        scores[starts],
        np.add.reduceat(positives[order], starts),
        np.add.reduceat(negatives[order], starts),
    )


def _auc(table: ScoreTable) -> float:
    """Share of (positive, negative) pairs that the score orders rightly, ties half; NaN without pairs."""
    positives, negatives = int(table.positives.sum()), int(table.negatives.sum())
    if positives == 0 or negatives == 0:
        return math.nan
    below = np.cumsum(table.negatives) - table.negatives
    ordered = table.positives.astype(np.float64) * (below + 0.5 * table.negatives)
    return float(ordered.sum()) / (positives * negatives)


def _average_precision(table: ScoreTable) -> float:
    """Precision at each distinct score, from the highest, weighted by the recall that it adds."""
    positives = int(table.positives.sum())
    if positives == 0:
        return 0.0
    hits = np.cumsum(table.positives[::-1])
    chosen = np.cumsum((table.positives + table.negatives)[::-1])
    return float((table.positives[::-1] * (hits / chosen)).sum()) / positives


def _positive_log_loss(table: ScoreTable) -> float:
    """Sum of -ln(score) over the positive rows."""
    return float(-(table.positives * np.log(np.clip(table.scores, _EPS, 1 - _EPS))).sum())


def _negative_log_loss(table: ScoreTable) -> float:
    """Sum of -ln(1 - score) over the negative rows."""
    return float(-(table.negatives * np.log(np.clip(1 - table.scores, _EPS, 1 - _EPS))).sum())


def _squared_errors(table: ScoreTable) -> float:
    """Sum over rows of (label - score)**2."""
    return float((table.positives * (1 - table.scores) ** 2 + table.negatives * table.scores**2).sum())


def _agreement(confusion: list[list[int]]) -> tuple[float, float]:
    """Cohen's kappa (NaN where chance alone explains all) and Matthews' coefficient, in exact integers."""
    actual = [sum(row) for row in confusion]
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    rows = sum(actual)
    right = sum(confusion[i][i] for i in range(len(confusion)))
    chance = sum(a * p for a, p in zip(actual, predicted, strict=True))
    covariance = right * rows - chance
    kappa = covariance / (rows * rows - chance) if rows * rows != chance else math.nan
    spread_actual = rows * rows - sum(a * a for a in actual)
    spread_predicted = rows * rows - sum(p * p for p in predicted)
    if spread_actual == 0 or spread_predicted == 0:
        return kappa, 0.0
    return kappa, covariance / math.sqrt(spread_actual * spread_predicted)


def _macro(numerators: NDArray[np.int64], denominators: NDArray[np.int64]) -> float:
    pairs = zip(numerators.tolist(), denominators.tolist(), strict=True)
    return sum(_ratio(top, bottom) for top, bottom in pairs) / numerators.size


def _ratio(top: int, bottom: int) -> float:
    return top / bottom if bottom else 0.0


def _some_rows(rows: int) -> int:
    if rows == 0:
        raise DataError("There are no rows to evaluate: the test set is empty. Widen the split or the filter.")
    return rows


def _same_rows(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"arrays of {a.shape[0]} and {b.shape[0]} rows do not belong together")


def _probabilities(values: NDArray[Any]) -> NDArray[np.float64]:
    """float64 in [0, 1] without -0.0, which would be a second way to write a score of 0."""
    scores = np.asarray(values, dtype=np.float64)
    right = (scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)
    if not right.all():
        wrong = scores[~right]
        raise DataError(
            f"Scores must be probabilities between 0 and 1; {wrong.size} of {scores.size} are not, the "
            f"first is {wrong[0]}. Turn margins into probabilities and drop missing scores first."
        )
    return np.clip(scores, 0.0, 1.0) + 0.0


def _margins(values: NDArray[Any]) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    wrong = scores[~np.isfinite(scores)]
    if wrong.size:
        raise DataError(f"Scores must be finite; {wrong.size} of {scores.size} are not, the first is {wrong[0]}.")
    return scores + 0.0


def _flags(values: NDArray[Any], name: str) -> NDArray[np.bool_]:
    flags = np.asarray(values)
    if flags.dtype == np.bool_:
        return flags
    positive: NDArray[np.bool_] = flags == 1
    wrong = flags[~positive & (flags != 0)]
    if wrong.size:
        raise DataError(
            f"Two-class {name} must be 0 or 1; {wrong.size} of {flags.size} are not, the first is "
            f"{wrong[0]}. Encode the classes as 0 and 1 and drop missing ones first."
        )
    return positive


def _codes(values: NDArray[Any], size: int, name: str) -> NDArray[np.int64]:
    given = np.asarray(values, dtype=np.float64)
    right = (given >= 0) & (given < size) & (given == np.floor(given))
    if not right.all():
        wrong = given[~right]
        raise DataError(
            f"Codes of {name} must be whole numbers from 0 to {size - 1}; {wrong.size} of {given.size} "
            f"are not, the first is {wrong[0]}. Give unseen or missing ones a code of their own."
        )
    return given.astype(np.int64)
