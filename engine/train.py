"""Stages `train`: one model, and `refit`: the best of a comparison.

Boosted trees and what is solved from sums over rows (`treadle.engine.exact`) train over the cluster, on all rows;
all other models on one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.engine.artifacts import Comparison, Features, Part, SplitRule, Trained
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.boosting import train_boosted
from treadle.engine.context import Context
from treadle.engine.exact.fit import fit, kinds_of
from treadle.engine.exact.params import trains_exactly
from treadle.engine.fitting import fit_estimator
from treadle.engine.job import THRESHOLD
from treadle.engine.job import Model as ModelConfig
from treadle.engine.meter import Meter
from treadle.engine.models.base import Model, decided, save_model
from treadle.engine.models.boosted import is_linear, said_by
from treadle.engine.models.calibration import Calibration
from treadle.engine.models.catalogue import CATALOGUE, check_models, nulls_refused
from treadle.engine.models.constraints import by_place
from treadle.engine.models.decision import check_decision, decide
from treadle.engine.passes import OverBlocks
from treadle.engine.relational.keys import hash_keys
from treadle.engine.trials.outcome import out_of_fold
from treadle.engine.trials.runner import Trials
from treadle.errors import DataError, TreadleError
from treadle.kernels.hashing import uniform

if TYPE_CHECKING:
    from distributed import Future

REVISION = 4
WORKER_SHARE = 0.25
"""Share of a worker's memory that the training rows of a single-worker model may take (float64)."""


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
    entry = CATALOGUE[config.name]
    blocks = blocks_of(context, features, rule)
    notes: list[str] = []
    meter = Meter()
    if not entry.nulls and (nulls := _with_nulls(context, blocks, features.names)):
        return _failed(config, 0.0, nulls_refused(config, nulls))
    try:
        with meter:
            config = by_place(config, features.names)
            if trains_on_devices(config):
                model: Model
                model, rows = train_boosted(context, features, rule, config, notes)
            elif trains_exactly(config):
                passes = OverBlocks(context, blocks, len(features.names), kinds_of(context.job.listed_models))
                model, said = fit(config, rule.task, rule.classes, passes)
                notes += [f"{config.title}: {text}" for text in said]
                rows = rule.train_rows
            else:
                model, rows = _train_on_worker(context, blocks, features, rule, config, notes)
    except DataError as error:
        return _failed(config, meter.cost.wall_seconds, str(error))
    except TreadleError:
        raise
    except Exception as error:
        return _failed(config, meter.cost.wall_seconds, f"{type(error).__name__}: {said_by(error)}"[:500])
    if threshold is None:
        named = context.job.decision.threshold
        threshold = named if isinstance(named, float) else THRESHOLD
    model = decided(model, calibration, threshold)
    if not model.has_probabilities:
        notes.append(
            f"{config.title}: it gives no probabilities: its scores only rank rows and decide, and have no log_loss "
            "and brier"
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
        name=config.title,
        model=config.name,
        files=tuple(files),
        rows_used=rows,
        seconds=meter.cost.wall_seconds,
        peak_bytes=meter.cost.peak_bytes,
        warnings=tuple(notes),
        fell_back=_fell_back(context, config),
    )


def refit(context: Context, features: Features, rule: SplitRule, comparison: Comparison, trials: Trials) -> Trained:
    """The best model, trained on all training rows; calibrated, and its threshold chosen, by its scores out of folds.

    Raises
    ------
    TreadleError
        It cannot be, though it could be without any of the folds.
    """
    config = next(config for config in comparison.configs if config.title == comparison.best)
    calibration, threshold = None, None
    if context.job.decision.needs_folds:
        (outcomes,) = trials.run([config])
        margin, score, target = out_of_fold(context.store, trials.base, outcomes)
        labels = target.astype(np.int64)
        calibration, threshold = decide(context.job.decision, rule.task, margin, score, labels)
    trials.release()
    trained = run(context, features, rule, config, calibration, threshold)
    if trained.error is not None:
        raise TreadleError(
            f"{comparison.best} is the best model by {comparison.metric}, and could not be trained on all training "
            f"rows: {trained.error}"
        )
    return trained


def trains_on_devices(config: ModelConfig) -> bool:
    """Whether a model is trained by all workers together, and on GPUs where the job runs on some."""
    return CATALOGUE[config.name].family == "boosted" and not is_linear(config.params)


def _fell_back(context: Context, config: ModelConfig) -> tuple[str, ...]:
    if context.backend.name == "cpu" or trains_on_devices(config):
        return ()
    how = "by kernels of the host" if trains_exactly(config) else "by a library without GPU code"
    return (f"{context.stage}: on the host, since {config.name} is trained {how}",)


def _failed(config: ModelConfig, seconds: float, reason: str) -> Trained:
    return Trained(name=config.title, model=config.name, files=(), rows_used=0, seconds=seconds, error=reason)


def _with_nulls(context: Context, blocks: Sequence[Future], names: Sequence[str]) -> list[str]:
    """The features that are null in some row, for training or for the test."""
    if "null columns" not in context.live:
        context.live["null columns"] = np.any(context.gather(context.submit_like(null_columns, blocks)), axis=0)
    found = context.live["null columns"]
    return [name for name, has_nulls in zip(names, found, strict=True) if has_nulls]


def null_columns(block: Block) -> np.ndarray:
    """On a worker: whether a column has nulls, bool (features,)."""
    return np.isnan(block.matrix).any(axis=0)


def _train_on_worker(
    context: Context,
    blocks: Sequence[Future],
    features: Features,
    rule: SplitRule,
    config: ModelConfig,
    notes: list[str],
) -> tuple[Model, int]:
    fits = int(context.room.memory * WORKER_SHARE / (8 * len(features.names)))
    share = min(1.0, fits / rule.train_rows)
    if share < 1.0:
        notes.append(
            f"{config.title}: trained on a sample of about {fits} of {rule.train_rows} rows, "
            "which is what a worker holds"
        )
    kept = context.submit_like(sample, blocks, share, context.job.seed)
    future = context.client.submit(fit_estimator, kept, config, rule, context.job.seed, pure=False)
    model, rows, said = context.gather([future])[0]
    notes += [f"{config.title}: {text}" for text in said]
    return model, rows


def sample(block: Block, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """On a worker: the training rows, or those of them that a hash of their id draws."""
    import pandas as pd

    mask = ~block.test
    if share < 1.0:
        ids = pd.Series(block.ids.to_pandas())
        mask &= uniform(hash_keys(ids, seed + 1)) < share
    rows = block.take(mask)
    return rows.matrix, rows.target
