"""Whole jobs with models that are trained on all rows where they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec
from treadle.engine import training_place
from treadle.jobs.run import Run

MODELS: list[Any] = [
    "lda",
    "naive_bayes",
    {"name": "logistic_regression", "params": {"class_weight": {"yes": 2.0}}},
    "ridge",
    {"name": "qda", "params": {"reg_param": 0.1}},
    {"name": "qda", "label": "qda-singular"},
]


def test_models_see_all_rows_however_they_are_partitioned(
    people: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no worker could hold more than a few of them; and one that cannot be made is a line with its reason."""
    monkeypatch.setattr(training_place, "WORKER_SHARE", 1e-9)
    runs = []
    for partitions in (1, 5):
        data = {"path": str(people), "target": "buys", "positive_class": "yes", "id": "key", "partitions": partitions}
        runs.append(treadle.run(people_spec(people, tmp_path / str(partitions), scheduler, data=data, models=MODELS)))
    boards = [run.leaderboard.set_index("model").sort_index() for run in runs]
    for board in boards:
        assert list(board.index) == ["lda", "logistic_regression", "naive_bayes", "qda", "qda-singular", "ridge"]
        failed = board.loc["qda-singular"]
        assert failed["error"].startswith("the covariance of class 'no' has rank ")
        assert (board.drop(index="qda-singular")["rows_used"] == 450).all()
        assert (board.drop(index="qda-singular")["auc"] > 0.7).all()
    scores = ["auc", "accuracy", "log_loss", "brier", "f1"]
    pd.testing.assert_frame_equal(boards[0][scores], boards[1][scores], rtol=1e-6)
    one, other = (run.table("predictions").to_pandas().sort_values("id", ignore_index=True) for run in runs)
    pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", ["naive_bayes", {"name": "qda", "params": {"reg_param": 0.1}}, "lda"])
@pytest.mark.parametrize("target", ["buys", "city"])
def test_contributions_add_up_to_the_margin_of_new_rows_too(
    run_people: Callable[..., Run], people: Path, model: Any, target: str
) -> None:
    several = {
        "data": {"path": str(people), "target": "city", "id": "key"},
        "tables": [{"op": "drop", "columns": ["buys", "joined", "income"]}],
        "features": [],
        "metric": "accuracy",
    }
    explain = {"rows": "all", "dtype": "float64"}
    run = run_people(models=[model], explain=explain, predict={"rows": "all"}, **(several if target == "city" else {}))
    predictions, explanations = (run.table(name).to_pandas() for name in ("predictions", "explanations"))
    if target == "city":
        sums = explanations.set_index(["id", "class"]).sum(axis=1).unstack()
        margins = predictions.set_index("id")[[f"margin_{name}" for name in sums.columns]]
    else:
        sums = explanations.set_index("id").sum(axis=1)
        margins = predictions.set_index("id")["margin"]
    np.testing.assert_allclose(sums.loc[margins.index], margins, atol=1e-9)
    again = run.model.predict(pd.read_parquet(people)).set_index("id")
    name = "margin" if target == "buys" else "margin_Ulm"
    np.testing.assert_array_equal(again.loc[margins.index, name], predictions.set_index("id")[name])


def test_a_penalty_of_absolute_values_is_fitted_by_scikit_learn(run_people: Callable[..., Run]) -> None:
    lasso = {"penalty": "l1", "solver": "saga", "C": 0.05, "max_iter": 5000}
    run = run_people(models=[{"name": "logistic_regression", "params": lasso}])
    assert run.leaderboard["error"].isna().all()
    assert 0 in [round(value, 12) for value in run.importance.values()]
