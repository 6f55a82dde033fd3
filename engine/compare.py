"""Stage `compare`: models by folds of the training rows.

Every model is trained without each fold and measured on it, with features that are fitted without it, too. What
the leaderboard says of a model is the mean over the folds.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.engine.artifacts import Comparison, Folds, Prepared, SplitRule
from treadle.engine.context import Context
from treadle.engine.job import Model as ModelConfig
from treadle.engine.leaderboard import Row, p_value, ranked, spread
from treadle.engine.models.catalogue import candidates, check_models, not_installed
from treadle.engine.rows import Rows
from treadle.engine.trials.outcome import Outcome
from treadle.engine.trials.runner import Trials
from treadle.errors import TreadleError, listed

REVISION = 1


def run(context: Context, prepared: Prepared, rule: SplitRule, folds: Folds, base: str) -> Comparison:
    """Trials of every model on every fold; `base` is the digest of rows, features and folds.

    Raises
    ------
    TreadleError
        No model could be trained.
    """
    job = context.job
    check_models(job, rule.task)
    assert job.compared is not None
    configs = candidates(job, rule.task)
    trials = Trials(context, prepared, rule, folds, base, job.compared.limit_seconds)
    found = trials.run(configs)
    trials.release()
    Rows.of(context, prepared).release()
    metric = job.metric_for(rule.task)
    rows = ranked([_row(config, outcomes) for config, outcomes in zip(configs, found, strict=True)], metric)
    if rows[0]["error"] is not None:
        raise TreadleError("No model could be trained: " + "; ".join(f"{row['model']}: {row['error']}" for row in rows))
    by_title = {config.title: outcomes for config, outcomes in zip(configs, found, strict=True)}
    best = by_title[rows[0]["model"]]
    share = sum(folds.rows[fold] / outcome.rows for fold, outcome in enumerate(best)) / folds.count
    _compare_with_best(rows, by_title, metric, share)
    lacking = not_installed(job, rule.task)
    warnings = [f"models: [{listed(lacking)}] left out: their libraries are not installed"] if lacking else []
    for title, outcomes in by_title.items():
        said = dict.fromkeys(text for outcome in outcomes for text in outcome.said)
        warnings += [f"{title}: {text}" for text in said]
    return Comparison(
        metric=metric,
        best=rows[0]["model"],
        rows=tuple(rows),
        folds=tuple(
            {"model": title, "fold": fold, **outcome.metrics, "rows_used": outcome.rows,
             "train_seconds": outcome.train_seconds, "predict_seconds": outcome.predict_seconds,
             "error": outcome.error}
            for title, outcomes in by_title.items()
            for fold, outcome in enumerate(outcomes)
        ),
        lasting=all(outcome.lasting for outcomes in found for outcome in outcomes),
        warnings=tuple(warnings),
    )  # fmt: skip


def _row(config: ModelConfig, outcomes: Sequence[Outcome]) -> Row:
    """Of the leaderboard: means over the folds, or what went wrong in the first that failed."""
    error = next((o.error for o in outcomes if o.error is not None), None)
    good = [outcome for outcome in outcomes if outcome.error is None]
    row: Row = {"model": config.title, **(spread([o.metrics for o in good]) if error is None else {})}
    count = max(len(good), 1)
    return {
        **row,
        "rows_used": sum(outcome.rows for outcome in good) // count,
        "train_seconds": sum(outcome.train_seconds for outcome in good) / count,
        "predict_seconds": sum(outcome.predict_seconds for outcome in good) / count,
        "peak_bytes": max((outcome.peak_bytes for outcome in good), default=None),
        "error": error,
    }


def _compare_with_best(rows: list[Row], found: dict[str, list[Outcome]], metric: str, share: float) -> None:
    """Adds to each row the p-value of its being as good as the first one by chance."""

    def values(row: Row) -> list[float]:
        return [outcome.metrics[metric] for outcome in found[row["model"]] if metric in outcome.metrics]

    best = values(rows[0])
    for row in rows:
        own = values(row) if row["error"] is None else []
        row["p_value"] = p_value(own, best, share) if row is not rows[0] and len(own) == len(best) else None
