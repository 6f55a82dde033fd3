"""On a worker: one trial."""

from __future__ import annotations

import time

import numpy as np
import psutil

from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import HOST, Backend
from treadle.engine.fitting import fit_model
from treadle.engine.job import Model as ModelConfig
from treadle.engine.measuring import metrics_of
from treadle.engine.models.base import decided
from treadle.engine.models.boosted import said_by, threads_limited
from treadle.engine.models.catalogue import entry_of, nulls_refused
from treadle.engine.models.constraints import by_place
from treadle.engine.trials.fold_data import FoldData
from treadle.engine.trials.outcome import Outcome
from treadle.errors import DataError

PASSING = (MemoryError, OSError)
"""Errors that another attempt may not have."""


def run_trial(
    data: FoldData,
    config: ModelConfig,
    rule: SplitRule,
    seed: int,
    threshold: float,
    threads: int,
    topic: str,
    rows: int | None = None,
    backend: Backend = HOST,
) -> Outcome:
    """Trains a model on so many threads and measures it on the fold, of two classes at a threshold.

    It is trained on all rows that are not in the fold, or so many `rows` of them.
    Whatever it raises is the outcome. Who listens to the topic hears the task's key when it begins.
    """
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(topic, str(worker.get_current_task()))
    with threads_limited(threads):
        try:
            drawn = data if rows is None else data.sample(rows, rule.task)
            return _run(drawn, config, rule, seed, threshold, backend)
        except DataError as error:
            return Outcome(error=str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {said_by(error)}"[:500]
            return Outcome(error=reason, lasting=not isinstance(error, PASSING))


def _run(
    data: FoldData, config: ModelConfig, rule: SplitRule, seed: int, threshold: float, backend: Backend
) -> Outcome:
    if data.null and not entry_of(config).nulls:
        return Outcome(error=nulls_refused(config, data.null))
    config = by_place(config, data.names)
    started = time.perf_counter()
    model, said = fit_model(config, rule, data.matrix, data.target, data.gathered, seed, data.weight, backend)
    model = decided(model, None, threshold)
    trained = time.perf_counter()
    peak = psutil.Process().memory_info().rss
    measured = time.perf_counter()
    margin = model.margin(data.test_matrix)
    score = model.scores(margin)
    predicted = time.perf_counter()
    labels = data.test_target if rule.task == "regression" else data.test_target.astype(np.int64)
    return Outcome(
        metrics=metrics_of(model, rule.task, margin, score, labels),
        rows=len(data.target),
        train_seconds=trained - started,
        predict_seconds=predicted - measured,
        peak_bytes=peak,
        said=tuple(said),
        margin=margin,
        score=score,
    )
