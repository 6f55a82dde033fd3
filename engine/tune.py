"""Stage `tune`: better parameters of some models, by the folds that models are compared by.

Its comparison has the models of `compare`, and each that was tuned a second time with the parameters that were found.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence

from treadle.engine.artifacts import Comparison, Folds, SplitRule, Tuned
from treadle.engine.budget import ENDING, REFIT, end_of
from treadle.engine.comparison import compared
from treadle.engine.context import Context
from treadle.engine.job import Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.leaderboard import Row
from treadle.engine.models.spaces import check_tuning, space_of, tunable
from treadle.engine.sections.base import seconds_of
from treadle.engine.sections.tune import tuned_title
from treadle.engine.trials.base import Trials
from treadle.engine.trials.tuning import Attempt, Search, search

REVISION = 1


def run(context: Context, rule: SplitRule, folds: Folds, comparison: Comparison, trials: Trials) -> Tuned:
    """Tries parameters of the models that are tuned.

    Raises
    ------
    RequestError
        The models of this task have nothing to tune, or not what the spec says.
    """
    job = context.job
    assert job.tune is not None
    check_tuning(job, rule.task)
    metric = comparison.metric
    chosen = chosen_of(job, comparison)
    searches = [
        Search(config, space_of(config, job.tune.space), metric, rule.task, own, job.tune.trials, job.seed)
        for config, own in zip(chosen, trials.run(chosen), strict=True)
    ]
    search(searches, trials, _end(context, comparison))
    found: list[ModelConfig] = []
    warnings: list[str] = []
    for one in searches:
        best = one.best
        if best is None:
            errors = dict.fromkeys(attempt.error for attempt in one.attempts if attempt.error is not None)
            warnings.append(
                f"tune: {one.config.title} could be trained with none of the parameters: {next(iter(errors))}"
            )
        elif trials.key(best.config) != trials.key(one.config):
            found.append(best.config.model_copy(update={"label": tuned_title(one.config.title)}))
    if not chosen:
        warnings.append(f"tune: no model that has something to tune could be compared by {metric}")
    configs = [*comparison.configs, *found]
    whole = compared(metric, folds, configs, trials.run(configs), warnings)
    outcomes = [outcome for one in searches for attempt in one.attempts for outcome in attempt.outcomes]
    return Tuned(
        **{
            **dict(whole),
            "lasting": whole.lasting and all(outcome.lasting for outcome in outcomes),
            "warnings": tuple(text for text in whole.warnings if text not in comparison.warnings),
        },
        trials=tuple(_row(one, attempt) for one in searches for attempt in one.attempts),
    )


def _end(context: Context, comparison: Comparison) -> float | None:
    """When no trial begins any more, on the monotonic clock: in time for what comes after, of the job's budget."""
    assert context.job.tune is not None
    ends = []
    if (own := seconds_of(context.job.tune.budget)) is not None:
        ends.append(time.monotonic() + own)
    if (whole := end_of(context, 1.0 - ENDING)) is not None:
        # All of them may be in an ensemble, and are trained on all rows one after the other.
        ends.append(whole - REFIT * sum(row["train_seconds"] for row in comparison.rows))
    return min(ends, default=None)


def chosen_of(job: Job, comparison: Comparison) -> Sequence[ModelConfig]:
    """The models that are tuned: those that the spec names, or so many of the best that have something to tune."""
    assert job.tune is not None
    able = {config.title: config for config in tunable(job, comparison.configs)}
    if isinstance(job.tune.models, tuple):
        return tuple(able.values())
    good = [
        row["model"]
        for row in comparison.rows
        if row["error"] is None and math.isfinite(row.get(comparison.metric, math.nan))
    ]
    return [able[title] for title in good if title in able][: job.tune.models]


def _row(one: Search, attempt: Attempt) -> Row:
    """Of the table `trials`."""
    values = attempt.values(one.metric)
    good = attempt.error is None and values
    return {
        "model": one.config.title,
        "number": attempt.number,
        "state": attempt.state,
        "value": statistics.fmean(values) if good else None,
        "params": json.dumps(attempt.config.params, sort_keys=True),
        "folds": sum(outcome.error is None for outcome in attempt.outcomes),
        "seconds": attempt.seconds,
        "error": attempt.error,
    }
