"""Stage `race`: which models are worth being compared by all folds.

Successive halving: all models are trained on a small sample of the training rows and measured on two folds; the
better half of them goes on to a sample `GROWTH` times as large, until few enough are left, or the samples are all
rows. Features are fitted to all rows that are not in the fold.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.engine.artifacts import Folds, Raced, SplitRule
from treadle.engine.budget import COMPARE, RACE, end_of, left, trial_seconds
from treadle.engine.context import Context
from treadle.engine.job import LOWER_IS_BETTER
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.catalogue import candidates, check_models, left_out
from treadle.engine.sections.race import GROWTH, Race
from treadle.engine.trials.base import Terms, Trials
from treadle.engine.trials.outcome import NOT_BEGUN, Outcome
from treadle.errors import TreadleError

REVISION = 1
FOLDS = (0, 1)
"""Those that models are measured on."""


@dataclass(frozen=True)
class Heat:
    """Models on one sample, each with an outcome a fold."""

    rows: int
    """That models were trained on; of the last heat there may be all."""
    configs: Sequence[ModelConfig]
    outcomes: Sequence[Sequence[Outcome]]

    def ranked(self, metric: str) -> list[ModelConfig]:
        """Those that were measured, the best first; of equally good ones in the order that they have."""
        sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
        values = [(_value(own, metric), config) for config, own in zip(self.configs, self.outcomes, strict=True)]
        known = [(sign * value, config) for value, config in values if value is not None]
        return [config for _, config in sorted(known, key=lambda pair: pair[0])]

    def not_begun(self) -> list[ModelConfig]:
        """Those for which there was no time."""
        return [config for config, own in zip(self.configs, self.outcomes, strict=True) if NOT_BEGUN in own]

    def seconds(self) -> dict[str, float]:
        """By title, of a thread, for training a model and measuring it on a fold."""
        return {
            config.title: statistics.fmean(outcome.train_seconds + outcome.predict_seconds for outcome in own)
            for config, own in zip(self.configs, self.outcomes, strict=True)
            if all(outcome.error is None for outcome in own)
        }


def run(context: Context, race: Race, rule: SplitRule, folds: Folds, trials: Trials) -> Raced:
    """Heats of all models of the job.

    Raises
    ------
    TreadleError
        No model could be trained.
    """
    job = context.job
    check_models(job, rule.task)
    metric = job.metric_for(rule.task)
    every = min(rule.without(folds, fold).train_rows for fold in FOLDS)
    end = end_of(context, RACE)
    heats: list[Heat] = []
    field = list(candidates(job, rule.task))
    rows = race.rows
    while True:
        terms = Terms(rows if rows < every else None, end, one_at_least=not heats)
        heat = Heat(min(rows, every), field, trials.run(field, FOLDS, terms))
        # Those for which there was no time follow in the order of the heat before, if there was one.
        ranking = heat.ranked(metric) + (heat.not_begun() if heats else [])
        heats.append(heat)
        # The best so many of a heat go on at last; another one for them alone would tell nothing.
        field = ranking[: (len(ranking) + 1) // 2]
        if rows >= every or len(field) <= race.keep or terms.is_over:
            break
        rows *= GROWTH
    table = [row for number, heat in enumerate(heats) for row in _rows(number, heat, metric)]
    if not ranking:
        raise TreadleError(
            "No model could be trained: " + "; ".join(f"{row['model']}: {row['error']}" for row in table)
        )
    costs = {title: seconds * every / heat.rows for heat in heats for title, seconds in heat.seconds().items()}
    kept, slow = _affordable(context, ranking, race.keep, costs, folds)
    titles = {config.title for config in kept}
    return Raced(
        metric=metric,
        configs=tuple(kept),
        heats=tuple({**row, "kept": row["model"] in titles} for row in table),
        lasting=all(outcome.lasting for heat in heats for own in heat.outcomes for outcome in own),
        warnings=(*left_out(job, rule.task), *slow),
    )


def _value(outcomes: Sequence[Outcome], metric: str) -> float | None:
    """The mean over the folds; None of what failed, or has no such metric."""
    if any(outcome.error is not None for outcome in outcomes):
        return None
    value = statistics.fmean(outcome.metrics.get(metric, math.nan) for outcome in outcomes)
    return value if math.isfinite(value) else None


def _rows(number: int, heat: Heat, metric: str) -> list[dict[str, object]]:
    """Of the table `race`."""
    seconds = heat.seconds()
    return [
        {
            "model": config.title,
            "heat": number,
            "rows": heat.rows,
            "value": _value(own, metric),
            "seconds": seconds.get(config.title),
            "error": next((outcome.error for outcome in own if outcome.error is not None), None),
        }
        for config, own in zip(heat.configs, heat.outcomes, strict=True)
    ]


def _affordable(
    context: Context, ranking: Sequence[ModelConfig], keep: int, costs: Mapping[str, float], folds: Folds
) -> tuple[list[ModelConfig], list[str]]:
    """The best that can be compared by all folds in time, and what is said of those that cannot."""
    remaining = left(context)
    if remaining is None:
        return list(ranking[:keep]), []
    threads = len(context.all_workers()) * context.room.threads
    room, limit = COMPARE * remaining, trial_seconds(context) or math.inf
    kept: list[ModelConfig] = []
    said: list[str] = []
    for config in ranking:
        needed = costs.get(config.title, math.inf) * folds.count / threads
        if needed <= room and costs[config.title] <= limit:
            kept.append(config)
            room -= needed
        else:
            told = f"would take about {needed:.0f} s" if math.isfinite(needed) else "was not measured in time"
            said.append(f"race: {config.title} is left out, since comparing it by all folds {told}")
        if len(kept) == keep:
            break
    if not kept:
        quickest = min(ranking, key=lambda config: costs.get(config.title, math.inf))
        kept, said = [quickest], [text for text in said if not text.startswith(f"race: {quickest.title} ")]
    return kept, said
