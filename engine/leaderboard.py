"""The leaderboard: one row a model, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treadle.engine.job import LOWER_IS_BETTER
from treadle.engine.sections.ensemble import ENSEMBLE

Row = dict[str, Any]


def ranked(rows: Sequence[Row], metric: str) -> list[Row]:
    """By a metric, the best first; then models without it, and those that failed, by name.

    An ensemble comes after models that are as good.
    """
    sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
    return sorted(
        rows,
        key=lambda row: (
            row["error"] is not None,
            _to_sort(row.get(metric), sign),
            row["model"] == ENSEMBLE,
            row["model"],
        ),
    )


def _to_sort(value: float | None, sign: float) -> float:
    """Models that have no such metric come after those that have."""
    return float("inf") if value is None or math.isnan(value) else sign * value


def spread(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of metrics by fold the mean and, as `<metric>_std`, the standard deviation (of these folds: divided by all)."""
    found: dict[str, float] = {}
    for name in values[0]:
        of_folds = np.array([metrics[name] for metrics in values])
        found[name] = float(of_folds.mean())
        found[f"{name}_std"] = float(of_folds.std())
    return found


def p_value(a: Sequence[float], b: Sequence[float], test_share: float) -> float:
    """Of the hypothesis that two models are equally good, from a metric of both by fold; NaN without differences.

    The corrected resampled t-test, two-sided: the models of two folds share most of their training rows, so that
    the variance of the differences says too little, and is raised by the rows tested over those trained on.

    Source: Nadeau and Bengio, "Inference for the generalization error", Machine Learning 52 (2003), section 4.2.

    Parameters
    ----------
    test_share : rows of a fold over rows trained on without it; 1 / (folds - 1) for folds of one size
    """
    from scipy.special import stdtr

    apart = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    variance = apart.var(ddof=1) if len(apart) > 1 else math.nan
    if not variance > 0:
        return math.nan
    t = apart.mean() / math.sqrt((1 / len(apart) + test_share) * variance)
    return float(2 * stdtr(len(apart) - 1, -abs(t)))
