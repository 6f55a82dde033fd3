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
    of_folds = [
        _of_fold(title, fold, outcome) for title, outcomes in by_title.items() for fold, outcome in enumerate(outcomes)
    ]
    said = [
        f"{title}: {text}"
        for title, outcomes in by_title.items()
        for text in dict.fromkeys(text for outcome in outcomes for text in outcome.said)
    ]
    return Comparison(
        metric=metric,
        best=rows[0]["model"],
        rows=_with_p_values(rows, of_folds, metric, folds),
        folds=tuple(of_folds),
        configs=tuple(configs),
        lasting=all(outcome.lasting for outcomes in found for outcome in outcomes),
        warnings=(*warnings, *said),
    )


def with_row(comparison: Comparison, title: str, outcomes: Sequence[Outcome], folds: Folds) -> Comparison:
    """A comparison with one more row, of outcomes by fold."""
    metric = comparison.metric
    rows = ranked([*comparison.rows, _row(title, outcomes)], metric)
    of_folds = [*comparison.folds, *(_of_fold(title, fold, outcome) for fold, outcome in enumerate(outcomes))]
    found = {"best": rows[0]["model"], "rows": _with_p_values(rows, of_folds, metric, folds), "folds": tuple(of_folds)}
    return comparison.model_copy(update=found)


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


def _with_p_values(rows: Sequence[Row], of_folds: Sequence[Row], metric: str, folds: Folds) -> tuple[Row, ...]:
    """Ranked rows, with the probability of each one's being as good as the first by chance.

    It is None of the first itself, and of what has no such metric.
    """
    by_title: dict[str, list[Row]] = {row["model"]: [] for row in rows}
    for row in of_folds:
        by_title[row["model"]].append(row)
    best = by_title[rows[0]["model"]]
    share = sum(folds.rows[row["fold"]] / row["rows_used"] for row in best) / folds.count
    found = []
    for row in rows:
        own = by_title[row["model"]]
        known = own is not best and all(metric in one for one in (*own, *best))
        value = p_value([one[metric] for one in own], [one[metric] for one in best], share) if known else None
        found.append({**row, "p_value": value})
    return tuple(found)
