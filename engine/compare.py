"""Stage `compare`: models by folds of the training rows.

Every model is trained without each fold and measured on it, with features that are fitted without it, too. What
the leaderboard says of a model is the mean over the folds.
"""

from __future__ import annotations

from treadle.engine.artifacts import Comparison, Folds, SplitRule
from treadle.engine.comparison import compared
from treadle.engine.context import Context
from treadle.engine.models.catalogue import candidates, check_models, left_out
from treadle.engine.trials.base import Trials
from treadle.engine.trials.placement import Placement

REVISION = 1


def run(context: Context, rule: SplitRule, folds: Folds, trials: Trials, placement: Placement) -> Comparison:
    """Trials of every model on every fold.

    Raises
    ------
    TreadleError
        No model could be trained.
    """
    job = context.job
    check_models(job, rule.task)
    configs = candidates(job, rule.task)
    warnings = left_out(job, rule.task)
    found = compared(job.metric_for(rule.task), folds, configs, trials.run(configs), warnings)
    return found.model_copy(update={"placement": placement.reason})
