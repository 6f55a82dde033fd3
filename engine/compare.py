"""Stage `compare`: models by folds of the training rows.

Every model is trained without each fold and measured on it, with features that are fitted without it, too. What
the leaderboard says of a model is the mean over the folds.
"""

from __future__ import annotations

from treadle.engine.artifacts import Comparison, Folds, Prepared, SplitRule
from treadle.engine.comparison import compared
from treadle.engine.context import Context
from treadle.engine.models.catalogue import candidates, check_models, not_installed
from treadle.engine.trials.runner import trials_of
from treadle.errors import listed

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
    configs = candidates(job, rule.task)
    found = trials_of(context, prepared, rule, folds, base).run(configs)
    lacking = not_installed(job, rule.task)
    warnings = [f"models: [{listed(lacking)}] left out: their libraries are not installed"] if lacking else []
    return compared(job.metric_for(rule.task), folds, configs, found, warnings)
