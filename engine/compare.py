"""Stage `compare`: models by folds of the training rows.

Every model is trained without each fold and measured on it, with features that are fitted without it, too. What
the leaderboard says of a model is the mean over the folds.
"""

from __future__ import annotations

from treadle.engine.artifacts import Comparison, Folds, Raced, SplitRule
from treadle.engine.budget import COMPARED, end_of
from treadle.engine.comparison import compared
from treadle.engine.context import Context
from treadle.engine.models.catalogue import candidates, check_models, left_out
from treadle.engine.trials.base import Terms, Trials
from treadle.engine.trials.placement import Placement

REVISION = 1


def run(
    context: Context, rule: SplitRule, folds: Folds, raced: Raced | None, trials: Trials, placement: Placement
) -> Comparison:
    """Trials of every model, or of those that a race has left, on every fold.

    Raises
    ------
    TreadleError
        No model could be trained.
    """
    job = context.job
    check_models(job, rule.task)
    configs = candidates(job, rule.task) if raced is None else raced.configs
    warnings = left_out(job, rule.task) if raced is None else ()
    outcomes = trials.run(configs, terms=Terms(end=end_of(context, COMPARED), one_at_least=True))
    found = compared(job.metric_for(rule.task), folds, configs, outcomes, warnings)
    return found.model_copy(update={"placement": placement.reason})
