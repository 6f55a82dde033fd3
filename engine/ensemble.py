"""Stage `ensemble`: one more model, made of those that were compared, by what they predicted out of folds.

Its row of the leaderboard is measured fold by fold, each with weights or a meta model that were fitted to the
predictions for the rows of the other folds. Those that predict later are fitted to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.engine.artifacts import Comparison, Folds, SplitRule
from treadle.engine.comparison import with_row
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.catalogue import entry_of
from treadle.engine.models.combination import Combination
from treadle.engine.sections.ensemble import ENSEMBLE, Ensemble
from treadle.engine.store import Store
from treadle.engine.trials.base import Trials
from treadle.engine.trials.ensembling import Library, Measure, combine_without
from treadle.engine.trials.mixture import mixture_of
from treadle.engine.trials.outcome import Outcome, fold_path, key_of, load, path_of, save
from treadle.errors import DataError, listed

REVISION = 3


def run(
    context: Context, rule: SplitRule, folds: Folds, comparison: Comparison, ensemble: Ensemble, trials: Trials
) -> Comparison:
    """The comparison with a row of the ensemble; as it is, with a warning, where fewer than two models can be in it."""
    configs, warnings = chosen_of(comparison, rule, ensemble)
    if len(configs) < 2:
        told = f"[{listed(config.title for config in configs)}]" if configs else "none"
        warnings.append(f"ensemble: it needs two models or more that have probabilities and did not fail: {told} left")
        return comparison.model_copy(update={"warnings": tuple(warnings)})
    found = trials.run(configs)
    threshold, task = trials.threshold, rule.task
    keys = tuple(key_of(config, context.job.seed, threshold) for config in configs)
    stored = (context.store, trials.base, keys, folds.count, task, rule.classes)
    library = library_of(*stored)
    measure = Measure(comparison.metric, task, threshold)
    kept = context.client.submit(library_of, *stored, pure=False)
    tasks = [
        context.client.submit(timed, ensemble, kept, measure, fold, pure=False) for fold in (*range(folds.count), None)
    ]
    try:
        *combinations, (combination, _) = context.gather(tasks)
    except DataError as error:
        failed = [Outcome(error=str(error))] * folds.count
        return with_row(comparison, ENSEMBLE, failed, folds).model_copy(update={"warnings": tuple(warnings)})
    mixture = mixture_of(ensemble.kind, [config.title for config in configs], combination)
    inside = [own for config, own in zip(configs, found, strict=True) if config.title in mixture.members]
    outcomes = []
    for fold, (own, seconds) in enumerate(combinations):
        margin = own.margin(library.of_fold(fold))
        score = own.scores(margin)
        metrics = measure.metrics(score, library.targets[fold])
        outcomes.append(_outcome([outcomes[fold] for outcomes in inside], seconds, metrics, margin, score))
    files = tuple(_saved(context, fold, outcome) for fold, outcome in enumerate(outcomes))
    whole = with_row(comparison, ENSEMBLE, outcomes, folds)
    return whole.model_copy(update={"ensemble": mixture, "files": files, "warnings": tuple(warnings)})


def chosen_of(comparison: Comparison, rule: SplitRule, ensemble: Ensemble) -> tuple[list[ModelConfig], list[str]]:
    """The models that an ensemble may be made of, the best first; what is to be said of others that were named."""
    configs = {config.title: config for config in comparison.configs}
    titles = [row["model"] for row in comparison.rows if row["error"] is None]
    able = [title for title in titles if rule.task == "regression" or entry_of(configs[title]).probabilities]
    if ensemble.models is None:
        return [configs[title] for title in able], []
    reasons = []
    for title in ensemble.models:
        if title not in configs:
            reasons.append(f"ensemble: {title} is left out, since it was not compared")
        elif title not in able:
            why = "gives no probabilities" if title in titles else "failed"
            reasons.append(f"ensemble: {title} is left out, since it {why}")
    return [configs[title] for title in able if title in ensemble.models], reasons


def library_of(
    store: Store, base: str, keys: Sequence[str], folds: int, task: Task, classes: tuple[Any, ...]
) -> Library:
    """Here or on a worker: the scores of models that have outcomes of every fold, by the keys of these."""
    outcomes = [[load(store, path_of(base, key, fold)) for fold in range(folds)] for key in keys]
    scores = tuple(tuple(np.asarray(one.score) for one in own if one is not None) for own in outcomes)
    targets = [store.read_parquet(fold_path(base, fold)).column("target").to_numpy() for fold in range(folds)]
    return Library(task, classes, scores, tuple(targets))


def timed(ensemble: Ensemble, library: Library, measure: Measure, fold: int | None) -> tuple[Combination, float]:
    """On a worker: as `combine_without`, and the wall seconds that it took."""
    started = time.perf_counter()
    combination = combine_without(ensemble, library, measure, fold)
    return combination, time.perf_counter() - started


def _outcome(
    members: Sequence[Outcome], seconds: float, metrics: dict[str, float], margin: np.ndarray, score: np.ndarray
) -> Outcome:
    """Of a fold: an ensemble costs what its members cost together, and the seconds of making one of them."""
    return Outcome(
        metrics=metrics,
        rows=min(member.rows for member in members),
        train_seconds=sum(member.train_seconds for member in members) + seconds,
        predict_seconds=sum(member.predict_seconds for member in members),
        peak_bytes=max(member.peak_bytes for member in members),
        margin=margin,
        score=score,
    )


def _saved(context: Context, fold: int, outcome: Outcome) -> Part:
    path = f"{context.folder}/fold-{fold:03d}.parquet"
    save(context.store, path, outcome)
    return Part(path=path, rows=len(np.asarray(outcome.score)), bytes=context.store.fs.size(context.store.path(path)))
