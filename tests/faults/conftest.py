"""A job that trains for some seconds, and its outcome when nothing goes wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from treadle.jobs.make_data import make_transactions
from treadle.jobs.run import Run

Spec = dict[str, Any]


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Card transactions on a cluster of its own: two workers, so that training is distributed."""
    folder = tmp_path_factory.mktemp("transactions")
    make_transactions(folder, 15_000, 3)
    return {
        "apiVersion": "treadle/v1",
        "name": "fraud",
        "data": {
            "path": str(folder / "transactions"),
            "target": "fraud",
            "positive_class": 1,
            "id": "transaction_id",
            "partitions": 4,
        },
        "tables": [
            {"op": "join", "with": {"path": str(folder / "customers")}, "on": ["customer_id"], "how": "left"},
            {
                "op": "aggregate",
                "by": ["customer_id"],
                "broadcast": True,
                "aggregations": {"usual": {"function": "mean", "column": "amount"}, "count": {"function": "count"}},
            },
            {"op": "drop", "columns": ["customer_id", "merchant", "home_country", "signup"]},
        ],
        "features": [
            {"op": "impute", "columns": ["amount", "age", "usual"], "method": "median"},
            {"op": "date_parts", "columns": ["ts"], "parts": ["hour", "weekday"]},
            {"op": "one_hot", "columns": ["channel", "segment"]},
            {"op": "ordinal", "columns": ["country"]},
        ],
        "split": {"kind": "stratified", "test_size": 0.25},
        "models": [{"name": "xgboost", "params": {"n_estimators": 120, "max_depth": 6}}],
        "metric": "auc",
        "explain": {"rows": "none"},
        "cluster": {"profile": "local", "workers": 2, "threads": 1, "memory": "2GB"},
    }


@pytest.fixture(scope="session")
def undisturbed(spec: Spec, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The job's outcome; on another cluster of two workers, which makes no difference."""
    root = str(tmp_path_factory.mktemp("undisturbed"))
    return treadle.run({**spec, "cluster": {"profile": "address", "address": scheduler}}, root=root)


METRICS = ["auc", "average_precision", "accuracy", "f1", "log_loss", "brier"]


def assert_same_outcome(found: Run, expected: Run) -> None:
    """Every row of the features and predictions, and the metrics."""
    for name in ("features", "predictions"):
        pd.testing.assert_frame_equal(
            found.table(name).to_pandas(), expected.table(name).to_pandas(), check_exact=name == "features", rtol=1e-6
        )
    np.testing.assert_allclose(found.leaderboard[METRICS], expected.leaderboard[METRICS], rtol=1e-6)
    assert found.leaderboard["error"].isna().all()
