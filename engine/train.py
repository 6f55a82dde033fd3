"""Stage `train`: one model.

Boosted trees and what is solved from sums over rows (`treadle.engine.exact`) train over the cluster, on all rows;
all other models on one worker.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.artifacts import Features, Part, SplitRule, Trained
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.boosting import train_boosted
from treadle.engine.context import Context
from treadle.engine.exact.classes import weights_by_code
from treadle.engine.exact.fit import fit, kinds_of
from treadle.engine.exact.params import trains_exactly
from treadle.engine.job import Model as ModelConfig
from treadle.engine.meter import Meter
from treadle.engine.models.base import Model, save_model
from treadle.engine.models.boosted import is_linear, native_params, quiet, said_by, task_threads, train_booster
from treadle.engine.models.booster import model_of_booster
from treadle.engine.models.catalogue import CATALOGUE, Entry, check_models
from treadle.engine.models.constraints import by_place
from treadle.engine.models.fitted import fitted_model
from treadle.engine.passes import OverBlocks
from treadle.engine.relational.keys import hash_keys
from treadle.errors import DataError, TreadleError, listed
from treadle.kernels.hashing import uniform

if TYPE_CHECKING:
    from distributed import Future

REVISION = 4
WORKER_SHARE = 0.25
"""Share of a worker's memory that the training rows of a single-worker model may take (float64)."""


def run(context: Context, features: Features, rule: SplitRule, config: ModelConfig) -> Trained:
    """Trains and saves; a model that fails is a line of the leaderboard with its error, not the end of the job."""
    check_models(context.job, rule.task)
    entry = CATALOGUE[config.name]
    blocks = blocks_of(context, features, rule)
    notes: list[str] = []
    meter = Meter()
    if not entry.nulls and (nulls := _with_nulls(context, blocks, features.names)):
        remedy = f"{{op: impute, columns: [{listed(nulls)}]}}"
        return _failed(config, 0.0, f"features have nulls, which {config.name} does not take; add {remedy} to features")
    try:
        with meter:
            config = by_place(config, features.names)
            if trains_on_devices(config):
                model: Model
                model, rows = train_boosted(context, features, rule, config, notes)
            elif trains_exactly(config):
                passes = OverBlocks(context, blocks, len(features.names), kinds_of(context.job.models))
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


def fit_estimator(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], config: ModelConfig, rule: SplitRule, seed: int
) -> tuple[Model, int, list[str]]:
    """On a worker: fits a model on all parts together; also what is to be said of it, or its library warned of.

    Raises
    ------
    DataError
        The training rows lack a class.
    """
    entry, task = CATALOGUE[config.name], rule.task
    # Coefficients are solved for in the data's type, and float32 stops short of convergence.
    kind = np.float64 if entry.family in ("linear", "network") else np.float32
    matrix = np.concatenate([part[0] for part in parts]).astype(kind, copy=False)
    target = np.concatenate([part[1] for part in parts])
    # Such an estimator would have fewer outputs than there are classes.
    lacking = [name for code, name in enumerate(rule.classes) if not (target == code).any()]
    if lacking:
        raise DataError(f"no training row is of class {listed(map(repr, lacking))}; choose another split")
    if entry.family == "boosted":
        rounds, params = native_params(config.params, task, len(rule.classes), seed)
        with quiet():
            raw = train_booster(matrix, target, params, rounds)
        model, reasons = model_of_booster(task, raw)
        return model, len(target), reasons
    estimator = make_estimator(entry, config, rule, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(matrix, target if task == "regression" else target.astype(np.int64))
    said = sorted({str(w.message).splitlines()[0] for w in caught})
    return fitted_model(entry, task, estimator, matrix, target, seed), len(target), said


def make_estimator(entry: Entry, config: ModelConfig, rule: SplitRule, seed: int) -> Any:
    """The library's estimator with the engine's seed and threads, where it takes them."""
    params: dict[str, Any] = dict(config.params)
    for name in ("class_weight", "class_weights"):
        if isinstance(given := params.get(name), Mapping):
            params[name] = dict(enumerate(weights_by_code(given, rule.classes, f"{name} of {config.title}")))
    known = entry.known(rule.task)
    engine: dict[str, Any] = {"random_state": seed, "thread_count": task_threads() or -1}
    if entry.family != "linear":
        engine["n_jobs"] = task_threads() or None
    taken = {name: value for name, value in engine.items() if name in known}
    return entry.estimator(rule.task)(**{**entry.defaults, **params, **taken})
