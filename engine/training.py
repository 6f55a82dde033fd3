"""Trains any model of the catalogue on rows that lie on the workers.

XGBoost, what is solved from sums over rows (`treadle.engine.exact`), and LightGBM of rows that do not fit a worker
train over the cluster, on all rows; all other models on one worker, which takes a sample where it has not the room
for all. `treadle.engine.training_place` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from treadle.engine.blocks import Block, Part
from treadle.engine.boosting import train_boosted
from treadle.engine.checkpoints import forget_checkpoints
from treadle.engine.document import digest
from treadle.engine.exact.fit import fit, kinds_of
from treadle.engine.fitting import fit_estimator, fit_together
from treadle.engine.job import Model as ModelConfig
from treadle.engine.lightgbm_training import train_lightgbm
from treadle.engine.models.base import Model
from treadle.engine.models.by_cuml import NO_CODE
from treadle.engine.models.catalogue import candidates, entry_of, nulls_refused
from treadle.engine.models.combination import Combination
from treadle.engine.models.constraints import by_place
from treadle.engine.models.ensemble import EnsembleModel, add_up, evaluations_of
from treadle.engine.models.sampled import Background, draw_background
from treadle.engine.passes import OverBlocks
from treadle.engine.relational.keys import hash_keys
from treadle.engine.rows import SAMPLE_SEED
from treadle.engine.training_place import place_of, rows_held, trains_over_all
from treadle.engine.training_rows import TrainingRows
from treadle.errors import DataError
from treadle.kernels.hashing import uniform

DRAWN_ROWS = 5000
"""About how many training rows those are drawn from that an ensemble's contributions are measured from."""


def train_model(training: TrainingRows, config: ModelConfig, notes: list[str]) -> tuple[Model, int]:
    """A model, and how many rows it was trained on; what is to be said of it is added to the notes.

    Raises
    ------
    DataError
        The rows do not allow the model.
    """
    context, rule = training.context, training.rule
    if not entry_of(config).nulls and (nulls := training.null_features()):
        raise DataError(nulls_refused(config, nulls))
    config = by_place(config, training.names)
    # Of all workers: one that is being started again just now counts.
    workers = replace(context.room, count=context.size)
    place = place_of(config, rule.train_rows, len(training.names), workers)
    if place == "all workers":
        if trains_over_all(config):
            return train_boosted(training, config, notes)
        context.fell_back(config.title, NO_CODE)
        return train_lightgbm(training, config, notes)
    if place == "sums":
        passes = OverBlocks(training, kinds_of(candidates(context.job, rule.task)))
        model, said = fit(config, rule.task, rule.classes, passes)
        notes += [f"{config.title}: {text}" for text in said]
        return model, rule.train_rows
    return _train_on_worker(training, config, notes)


def train_ensemble(
    training: TrainingRows, configs: Sequence[ModelConfig], combination: Combination, notes: list[str]
) -> tuple[Model, int]:
    """An ensemble of models that are each trained on the rows, as `train_model`; the fewest rows that one had.

    Raises
    ------
    DataError
        The rows do not allow a model.
    """
    context, task = training.context, training.rule.task
    members, rows = [], []
    for config in configs:
        # Checkpoints of one are not those of another.
        key = digest([training.key, config.model_dump(mode="json")])
        model, count = train_model(replace(training, key=key), config, notes)
        forget_checkpoints(context.store, key)
        members.append(model)
        rows.append(count)
    background = None
    if not add_up(task, members, combination):
        share = min(1.0, DRAWN_ROWS / training.rule.train_rows)
        kept = context.submit_like(sample, training.blocks(), share, context.job.seed)
        future = context.client.submit(background_of, kept, evaluations_of(members), context.job.seed, pure=False)
        background = context.gather([future])[0]
    titles = [config.title for config in configs]
    return EnsembleModel(task, titles, members, combination, background), min(rows)


def background_of(parts: Sequence[Part], evaluations: int, seed: int) -> Background:
    """On a worker: rows that contributions are measured from, of some training rows."""
    return draw_background(np.concatenate([part[0] for part in parts]), evaluations, seed)


def _train_on_worker(training: TrainingRows, config: ModelConfig, notes: list[str]) -> tuple[Model, int]:
    context, rule = training.context, training.rule
    fits = rows_held(len(training.names), context.room)
    share = min(1.0, fits / rule.train_rows)
    if share < 1.0:
        notes.append(
            f"{config.title}: trained on a sample of about {fits} of {rule.train_rows} rows, "
            "which is what a worker holds"
        )
    kept = context.submit_like(sample, training.blocks(), share, context.job.seed)
    future = context.client.submit(fit_estimator, kept, config, rule, context.job.seed, context.backend, pure=False)
    model, rows, said = context.gather([future])[0]
    notes += [f"{config.title}: {text}" for text in said]
    return model, rows


def train_drawn(training: TrainingRows, config: ModelConfig, notes: list[str], rows: int) -> tuple[Model, int]:
    """As `train_model`, on about so many rows, that are drawn, or as many as a worker holds.

    Raises
    ------
    DataError
        The rows do not allow the model.
    """
    if not entry_of(config).nulls and (nulls := training.null_features()):
        raise DataError(nulls_refused(config, nulls))
    context, rule = training.context, training.rule
    share = min(1.0, min(rows, rows_held(len(training.names), context.room)) / rule.train_rows)
    kept = context.submit_like(sample, training.blocks(), share, context.job.seed)
    config = by_place(config, training.names)
    future = context.client.submit(fit_together, kept, config, rule, context.job.seed, context.backend, pure=False)
    model, used, said = context.gather([future])[0]
    notes += [f"{config.title}: {text}" for text in said]
    return model, used


def sample(block: Block, share: float, seed: int) -> Part:
    """On a worker: the training rows, or those of them that a hash of their id draws."""
    import pandas as pd

    mask = ~block.test
    if share < 1.0:
        ids = pd.Series(block.ids.to_pandas())
        mask &= uniform(hash_keys(ids, seed + SAMPLE_SEED)) < share
    return block.take(mask).part
