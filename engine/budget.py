"""The wall clock that a run's search for a model may take: what each part of the search may use of it.

What comes of a search with a budget depends on how fast the machine is; what is written of each trial does not.
"""

from __future__ import annotations

import time

from treadle.engine.context import Context
from treadle.engine.sections.base import seconds_of

RACE = 0.3
"""Share of the budget after which no heat begins."""
COMPARE = 0.3
"""Share of what is left after a race that comparing models by all folds may take by what the race says."""
COMPARED = 0.7
"""Share of the budget after which no trial of a comparison begins, whatever the race said."""
A_TRIAL = 0.125
"""Share of the budget that training a model without a fold may take, and that it may take at least, in seconds:"""
LEAST_TRIAL_SECONDS = 10.0
REFIT = 1.2
"""Seconds of training a model on all rows over those of training it without a fold, at most."""
ENDING = 0.05
"""Share of the budget for what else comes after tuning."""


def end_of(context: Context, share: float = 1.0) -> float | None:
    """When that share of the budget is spent, on the monotonic clock; None without a budget."""
    budget = seconds_of(context.job.budget)
    return None if budget is None else context.began + share * budget


def trial_seconds(context: Context) -> float | None:
    """That training a model without a fold may take; None without a budget."""
    budget = seconds_of(context.job.budget)
    return None if budget is None else max(LEAST_TRIAL_SECONDS, A_TRIAL * budget)


def left(context: Context) -> float | None:
    """Seconds until the budget is spent, 0 at least; None without a budget."""
    end = end_of(context)
    return None if end is None else max(0.0, end - time.monotonic())
