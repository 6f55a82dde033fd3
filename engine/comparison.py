"""What trials say of models: a leaderboard of means over folds, and how sure its order is."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.engine.artifacts import Comparison, Folds
from treadle.engine.job import Model as ModelConfig
from treadle.engine.leaderboard import Row, p_value, ranked, spread
from treadle.engine.trials.outcome import Outcome
from treadle.errors import TreadleError


def compared(
    metric: str,
    folds: Folds,
    configs: Sequence[ModelConfig],
    found: Sequence[Sequence[Outcome]],
    warnings: Sequence[str] = (),
) -> Comparison:
    """Of the outcomes of every model, by fold.

    Raises
    ------
    TreadleError
        No model could be trained.
    """
    by_title = {config.title: outcomes for config, outcomes in zip(configs, found, strict=True)}
    rows = ranked([_row(title, outcomes) for title, outcomes in by_title.items()], metric)
    if rows[0]["error"] is not None:
        raise TreadleError("No model could be trained: " + "; ".join(f"{row['model']}: {row['error']}" for row in rows))
    best = by_title[rows[0]["model"]]
    share = sum(folds.rows[fold] / outcome.rows for fold, outcome in enumerate(best)) / folds.count
    for row in rows:
        row["p_value"] = _p_value(by_title[row["model"]], best, metric, share)
    said = [
        f"{title}: {text}"
        for title, outcomes in by_title.items()
        for text in dict.fromkeys(text for outcome in outcomes for text in outcome.said)
    ]
    return Comparison(
        metric=metric,
        best=rows[0]["model"],
        rows=tuple(rows),
        folds=tuple(
            _of_fold(title, fold, outcome)
            for title, outcomes in by_title.items()
            for fold, outcome in enumerate(outcomes)
        ),
        configs=tuple(configs),
        lasting=all(outcome.lasting for outcomes in found for outcome in outcomes),
        warnings=(*warnings, *said),
    )


def _row(title: str, outcomes: Sequence[Outcome]) -> Row:
    """Of the leaderboard: means over the folds, or what went wrong in the first that failed."""
    error = next((outcome.error for outcome in outcomes if outcome.error is not None), None)
    good = [outcome for outcome in outcomes if outcome.error is None]
    row: Row = {"model": title, **(spread([outcome.metrics for outcome in good]) if error is None else {})}
    count = max(len(good), 1)
    return {
        **row,
        "rows_used": sum(outcome.rows for outcome in good) // count,
        "train_seconds": sum(outcome.train_seconds for outcome in good) / count,
        "predict_seconds": sum(outcome.predict_seconds for outcome in good) / count,
        "peak_bytes": max((outcome.peak_bytes for outcome in good), default=None),
        "error": error,
    }


def _of_fold(title: str, fold: int, outcome: Outcome) -> Row:
    """Of the table `folds`."""
    return {
        "model": title,
        "fold": fold,
        **outcome.metrics,
        "rows_used": outcome.rows,
        "train_seconds": outcome.train_seconds,
        "predict_seconds": outcome.predict_seconds,
        "error": outcome.error,
    }


def _p_value(own: Sequence[Outcome], best: Sequence[Outcome], metric: str, share: float) -> float | None:
    """Of a model's being as good as the best by chance; None of the best itself, and of what has no such metric."""
    if own is best or not all(metric in outcome.metrics for outcome in (*own, *best)):
        return None
    return p_value([outcome.metrics[metric] for outcome in own], [outcome.metrics[metric] for outcome in best], share)
