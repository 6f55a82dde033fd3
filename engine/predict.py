"""Stage `predict`: scores of the run's own rows by the best model."""

from __future__ import annotations

from treadle.engine.artifacts import Features, Predictions, SplitRule, Trained
from treadle.engine.context import Context
from treadle.engine.scored import fell_back, scored_of

REVISION = 3


def run(context: Context, features: Features, rule: SplitRule, best: Trained) -> Predictions:
    """One file of the table `predictions` a partition."""
    scored = scored_of(context, features, rule, best)
    table = tuple(found.predictions for found in scored if found.predictions is not None)
    return Predictions(table=table, fell_back=fell_back(context, best, [found.margins_on_host for found in scored]))
