"""What a comparison says of its ensemble, as the objects that predict, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treadle.engine.artifacts import Comparison, Mixture
from treadle.engine.context import Context
from treadle.engine.models.base import Task
from treadle.engine.models.combination import Average, Combination, Stacked
from treadle.engine.models.linear import LinearModel
from treadle.engine.sections.ensemble import Kind
from treadle.engine.trials.outcome import Outcome, load
from treadle.errors import StorageError


def mixture_of(kind: Kind, titles: Sequence[str], combination: Combination) -> Mixture:
    """The combination of models with these titles; of an average without those that have no weight."""
    if isinstance(combination, Stacked):
        meta = combination.meta
        return Mixture(
            kind=kind,
            members=tuple(titles),
            coefficients=tuple(tuple(row) for row in meta.coefficients.tolist()),
            intercept=tuple(meta.intercept.tolist()),
            means=tuple(meta.means.tolist()),
        )
    order = [int(place) for place in np.argsort(-combination.weights, kind="stable") if combination.weights[place] > 0]
    return Mixture(
        kind=kind,
        members=tuple(titles[place] for place in order),
        weights=tuple(float(combination.weights[place]) for place in order),
        steps=combination.steps,
    )


def combination_of(mixture: Mixture, task: Task) -> Combination:
    """How the scores of a mixture's members, in their order, make its own."""
    if mixture.kind != "stack":
        return Average(np.asarray(mixture.weights))
    link = {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}[task]
    parts = (np.asarray(part) for part in (mixture.coefficients, mixture.intercept, mixture.means))
    return Stacked(LinearModel(task, link, *parts))  # type: ignore[arg-type]


def outcomes_of(context: Context, comparison: Comparison) -> list[Outcome]:
    """Of the ensemble, by fold.

    Raises
    ------
    StorageError
        A file of them is gone.
    """
    found = [load(context.store, part.path) for part in comparison.files]
    if any(outcome is None for outcome in found):
        raise StorageError("What the ensemble made of the folds is no longer under the artifacts root; run --fresh.")
    return [outcome for outcome in found if outcome is not None]
