"""Stage `explain`: the contributions of every feature to every row's margin, by the best model."""

from __future__ import annotations

import numpy as np

from treadle.engine.artifacts import Explanation, Features, SplitRule, Trained
from treadle.engine.context import Context
from treadle.engine.models.base import load_model
from treadle.engine.scored import fell_back, scored_of

REVISION = 3


def run(context: Context, features: Features, rule: SplitRule, best: Trained) -> Explanation:
    """One file of the table `explanations` a partition; a row that does not add up fails the stage."""
    scored = scored_of(context, features, rule, best)
    table = tuple(found.explanations for found in scored if found.explanations is not None)
    means = np.sum([found.sizes for found in scored], axis=0) / max(sum(part.rows for part in table), 1)
    order = np.argsort(-means, kind="stable")
    return Explanation(
        table=table,
        method=load_model(context.store, best.folder).method,
        importance={features.names[i]: float(means[i]) for i in order},
        additivity_error=max(found.error for found in scored),
        fell_back=fell_back(context, best, [found.contributions_on_host for found in scored]),
    )
