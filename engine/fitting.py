"""On a worker: fits any model of the catalogue on training rows in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import HOST, Backend
from treadle.engine.blocks import Part
from treadle.engine.exact.classes import check_classes, weights_by_code
from treadle.engine.exact.fit import fit
from treadle.engine.exact.params import trains_exactly
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model
from treadle.engine.models.boosted import is_linear, native_params, quiet, task_threads, train_booster
from treadle.engine.models.booster import model_of_booster
from treadle.engine.models.by_cuml import NO_CODE, fit_where, on_device_or_host
from treadle.engine.models.catalogue import Entry, entry_of
from treadle.engine.models.fitted import fitted_model
from treadle.engine.models.heard import heard
from treadle.engine.passes import OverRows, Rows
from treadle.engine.weights import check_mass


def fit_model(
    config: ModelConfig,
    rule: SplitRule,
    matrix: np.ndarray,
    target: np.ndarray,
    gathered: dict[str, Any],
    seed: int,
    weight: np.ndarray | None = None,
    backend: Backend = HOST,
) -> tuple[Model, list[str]]:
    """A model of float32 rows (rows, features), their targets and weights; also what is to be said of it.

    `gathered` is kept by the caller, for the other models of the same rows: moments that several are solved from.

    Raises
    ------
    DataError
        The rows lack a class, or do not allow the model.
    """
    if trains_exactly(config):
        rows = Rows(matrix, target, np.arange(len(target)), weight)
        return fit(config, rule.task, rule.classes, OverRows([rows], found=gathered, backend=backend))
    part = (matrix, target) if weight is None else (matrix, target, weight)
    model, _, said = fit_estimator([part], config, rule, seed, backend)
    return model, said


def fit_together(
    parts: Sequence[Part], config: ModelConfig, rule: SplitRule, seed: int, backend: Backend = HOST
) -> tuple[Model, int, list[str]]:
    """As `fit_model`, of all parts together; and their rows."""
    matrix, target, *weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    model, said = fit_model(config, rule, matrix, target, {}, seed, weight[0] if weight else None, backend)
    return model, len(target), said


def fit_estimator(
    parts: Sequence[Part], config: ModelConfig, rule: SplitRule, seed: int, backend: Backend = HOST
) -> tuple[Model, int, list[str]]:
    """Fits a model on all parts together: its rows; also what is to be said of it, or its library warned of.

    Raises
    ------
    DataError
        The training rows lack a class, or have the weight 0.
    """
    entry, task = entry_of(config), rule.task
    # Coefficients are solved for in the data's type, and float32 stops short of convergence.
    kind = np.float64 if entry.family in ("linear", "network") else np.float32
    matrix = np.concatenate([part[0] for part in parts]).astype(kind, copy=False)
    target = np.concatenate([part[1] for part in parts])
    weight = np.concatenate([part[2] for part in parts]) if len(parts[0]) > 2 else None
    if weight is not None:
        check_mass(weight.sum())
    # Such an estimator would have fewer outputs than there are classes.
    counts = np.ones(len(target)) if weight is None else weight
    check_classes([counts[target == code].sum() for code in range(len(rule.classes))], rule.classes)
    if entry.family == "boosted":
        model, reasons = model_of_booster(task, _boosted(config, rule, matrix, target, weight, seed, backend))
        return model, len(target), reasons
    estimator = make_estimator(entry, config, rule, seed)
    labels = target if task == "regression" else target.astype(np.int64)
    with heard() as said:
        estimator = fit_where(backend, config.title, entry.cuml, task, estimator, matrix, labels, weight)
    return fitted_model(entry, task, estimator, matrix, target, seed, weight), len(target), sorted(set(said))


def _boosted(
    config: ModelConfig,
    rule: SplitRule,
    matrix: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    seed: int,
    backend: Backend,
) -> bytes:
    """XGBoost's booster, trained where the backend computes; one without trees on the host."""
    rounds, params = native_params(config.params, rule.task, len(rule.classes), seed)

    def train(device: str) -> bytes:
        with quiet():
            return train_booster(matrix, target, {**params, "device": device}, rounds, weight)

    why = NO_CODE if is_linear(params) else None
    return on_device_or_host(backend, config.title, len(matrix), why, lambda: train("cuda"), lambda: train("cpu"))


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
