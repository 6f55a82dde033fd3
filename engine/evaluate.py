"""Stage `evaluate`: every model on the test rows, from statistics that merge exactly over partitions."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from treadle.engine.artifacts import Comparison, Evaluation, Features, SplitRule, Trained
from treadle.engine.blocks import Block, blocks_of
from treadle.engine.context import Context
from treadle.engine.job import CLASSIFICATION_METRICS, REGRESSION_METRICS
from treadle.engine.leaderboard import ranked
from treadle.engine.measuring import TASKS, metrics_from, table_of
from treadle.engine.models.base import load_model
from treadle.engine.store import Store
from treadle.errors import TreadleError
from treadle.kernels import metrics as m

REVISION = 4
METRICS = frozenset({*CLASSIFICATION_METRICS, *REGRESSION_METRICS})
MAX_GROUPS = 50
"""Values of a protected column that are reported one by one; a column with more is left out, with a warning."""


def run(
    context: Context,
    features: Features,
    rule: SplitRule,
    trained: Sequence[Trained],
    comparison: Comparison | None = None,
) -> Evaluation:
    """Metrics of every model, the best first; by the test rows, or by folds where there is a comparison.

    Of a comparison the best is trained, and is measured on the test rows besides.
    """
    job = context.job
    if comparison is not None and not rule.test_rows:
        return Evaluation(
            metric=comparison.metric, best=comparison.best, rows=comparison.rows, calibration={}, groups={}
        )
    good = [t for t in trained if t.error is None]
    if not good:
        raise TreadleError("No model could be trained: " + "; ".join(f"{t.name}: {t.error}" for t in trained))
    folders = {t.name: t.folder for t in good}
    futures = context.submit_like(
        measure, blocks_of(context, features, rule), context.store, folders, rule, job.data.protected
    )
    found = context.reduce(futures, functools.partial(merge, task=rule.task))
    metric = job.metric_for(rule.task)
    rows = ranked([_row(t, found.get(t.name), rule) for t in trained], metric)
    best = rows[0]["model"]
    calibration, groups, thresholds, warnings = {}, {}, {}, []
    if rule.task == "binary":
        thresholds = {name: part["threshold"] for name, part in found.items()}
        calibration = {name: m.calibration(part["table"]) for name, part in found.items() if part["probabilities"]}
        for column, counts in found[best]["groups"].items():
            if len(counts) > MAX_GROUPS:
                warnings.append(
                    f"protected column '{column}' has more than {MAX_GROUPS} values; bin it to see rates by group"
                )
            else:
                groups[column] = {value: m.group_rates(counts[value]) for value in sorted(counts)}
    held_out = None
    if comparison is not None:
        held_out = {name: value for name, value in rows[0].items() if name in METRICS}
    return Evaluation(
        metric=metric,
        best=best,
        rows=comparison.rows if comparison is not None else tuple(rows),
        calibration=calibration,
        groups=groups,
        held_out=held_out,
        thresholds=thresholds,
        warnings=tuple(warnings),
    )


def measure(
    block: Block, store: Store, folders: dict[str, str], rule: SplitRule, protected: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """On a worker: what one partition's test rows say of every model."""
    rows = block.select("test")
    found = {}
    for name, folder in folders.items():
        model = load_model(store, folder)
        started = time.perf_counter()
        margin = model.margin(rows.matrix)
        scores = model.scores(margin)
        part: dict[str, Any] = {"seconds": time.perf_counter() - started, "groups": {}}
        part["probabilities"] = model.has_probabilities
        part["threshold"] = model.threshold
        labels = rows.target if rule.task == "regression" else rows.target.astype(np.int64)
        part["table"] = table_of(model, rule.task, margin, scores, labels)
        if rule.task == "binary":
            predicted = model.classes(scores)
            for column in protected:
                part["groups"][column] = _group_counts(labels, predicted, rows.protected[column])
        found[name] = part
    return found


def _group_counts(labels: np.ndarray, predicted: np.ndarray, values: Any) -> dict[str, np.ndarray]:
    codes, names = pd.factorize(values.to_pandas(), use_na_sentinel=False)
    counts = m.group_counts(labels, predicted, codes, len(names))
    return {"null" if pd.isna(name) else str(name): counts[i] for i, name in enumerate(names)}


def merge(partials: list[dict[str, dict[str, Any]]], task: str) -> dict[str, dict[str, Any]]:
    """Statistics of several partitions as one."""
    merge_tables = TASKS[task][1]
    merged = {}
    for name in partials[0]:
        parts = [partial[name] for partial in partials]
        groups: dict[str, dict[str, np.ndarray]] = {}
        for part in parts:
            for column, counts in part["groups"].items():
                into = groups.setdefault(column, {})
                for value, count in counts.items():
                    into[value] = into[value] + count if value in into else count
        merged[name] = {
            "seconds": sum(part["seconds"] for part in parts),
            "probabilities": parts[0]["probabilities"],
            "threshold": parts[0]["threshold"],
            "table": merge_tables([part["table"] for part in parts]),
            "groups": groups,
        }
    return merged


def _row(trained: Trained, part: dict[str, Any] | None, rule: SplitRule) -> dict[str, Any]:
    values: dict[str, Any] = {"model": trained.name}
    if part is not None:
        values.update(metrics_from(part["table"], rule.task, part["probabilities"], part["threshold"]))
    return {
        **values,
        "rows_used": trained.rows_used,
        "train_seconds": trained.seconds,
        "predict_seconds": part["seconds"] if part else None,
        "peak_bytes": trained.peak_bytes,
        "error": trained.error,
    }
