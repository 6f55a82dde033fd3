"""Stages `train`: one model, and `refit`: the best of a comparison, which may be an ensemble of some."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from treadle.engine.artifacts import Comparison, Features, SplitRule, Trained
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.job import THRESHOLD
from treadle.engine.job import Model as ModelConfig
from treadle.engine.meter import Meter
from treadle.engine.models.base import Model, decided, save_model
from treadle.engine.models.boosted import said_by
from treadle.engine.models.calibration import Calibration
from treadle.engine.models.catalogue import check_models
from treadle.engine.models.decision import check_decision, decide
from treadle.engine.sections.ensemble import ENSEMBLE
from treadle.engine.training import train_ensemble, train_model
from treadle.engine.training_rows import TrainingRows
from treadle.engine.trials.base import Trials
from treadle.engine.trials.mixture import combination_of, outcomes_of
from treadle.engine.trials.outcome import out_of_fold
from treadle.errors import DataError, TreadleError

REVISION = 5


def run(
    context: Context,
    features: Features,
    rule: SplitRule,
    config: ModelConfig,
    calibration: Calibration | None = None,
    threshold: float | None = None,
) -> Trained:
    """Trains and saves; a model that fails is a line of the leaderboard with its error, not the end of the job.

    Without a threshold it has the one that the spec names, if any.
    """
    check_models(context.job, rule.task)
    check_decision(context.job, rule.task, has_folds=context.job.compared is not None)
    training = TrainingRows.of(context, features, rule)
    return _trained(
        context, config.title, [config], lambda notes: train_model(training, config, notes), calibration, threshold
    )


def _trained(
    context: Context,
    title: str,
    configs: Sequence[ModelConfig],
    train: Callable[[list[str]], tuple[Model, int]],
    calibration: Calibration | None,
    threshold: float | None,
) -> Trained:
    """What `train` makes of the models, saved."""
    name = configs[0].name if title != ENSEMBLE else ENSEMBLE
    notes: list[str] = []
    meter = Meter()
    try:
        with meter:
            model, rows = train(notes)
    except DataError as error:
        return _failed(title, name, meter.cost.wall_seconds, str(error))
    except TreadleError:
        raise
    except Exception as error:
        return _failed(title, name, meter.cost.wall_seconds, f"{type(error).__name__}: {said_by(error)}"[:500])
    if threshold is None:
        named = context.job.decision.threshold
        threshold = named if isinstance(named, float) else THRESHOLD
    model = decided(model, calibration, threshold)
    if not model.has_probabilities:
        notes.append(
            f"{title}: it gives no probabilities: its scores only rank rows and decide, and have no log_loss and brier"
        )
    save_model(model, context.store, context.folder)
    files = [
        Part(
            path=f"{context.folder}/{name}",
            rows=0,
            bytes=context.store.fs.size(context.store.path(f"{context.folder}/{name}")),
        )
        for name in context.store.list(context.folder)
        if name.startswith("model.")
    ]
    return Trained(
        name=title,
        model=name,
        files=tuple(files),
        rows_used=rows,
        seconds=meter.cost.wall_seconds,
        members=tuple(configs),
        peak_bytes=meter.cost.peak_bytes,
        warnings=tuple(notes),
    )


def refit(context: Context, features: Features, rule: SplitRule, comparison: Comparison, trials: Trials) -> Trained:
    """The best model, trained on all training rows; calibrated, and its threshold chosen, by its scores out of folds.

    Raises
    ------
    TreadleError
        It cannot be, though it could be without any of the folds.
    """
    job, is_ensemble = context.job, comparison.best == ENSEMBLE
    by_title = {config.title: config for config in comparison.configs}
    calibration, threshold = None, None
    if job.decision.needs_folds:
        if is_ensemble:
            outcomes = outcomes_of(context, comparison)
        else:
            (outcomes,) = trials.run([by_title[comparison.best]])
        margin, score, target = out_of_fold(context.store, trials.base, outcomes)
        labels = target.astype(np.int64)
        calibration, threshold = decide(job.decision, rule.task, margin, score, labels)
    trials.release()
    if is_ensemble:
        assert comparison.ensemble is not None
        configs = [by_title[title] for title in comparison.ensemble.members]
        combination = combination_of(comparison.ensemble, rule.task)
        training = TrainingRows.of(context, features, rule)
        trained = _trained(
            context,
            ENSEMBLE,
            configs,
            lambda notes: train_ensemble(training, configs, combination, notes),
            calibration,
            threshold,
        )
    else:
        trained = run(context, features, rule, by_title[comparison.best], calibration, threshold)
    if trained.error is not None:
        raise TreadleError(
            f"{comparison.best} is the best model by {comparison.metric}, and could not be trained on all training "
            f"rows: {trained.error}"
        )
    return trained


def _failed(title: str, name: str, seconds: float, reason: str) -> Trained:
    return Trained(name=title, model=name, files=(), rows_used=0, seconds=seconds, error=reason)
