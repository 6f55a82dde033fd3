"""LightGBM in whole jobs of rows that do not fit a worker, and where a plan says that models are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import people_spec
from treadle.jobs.commands.console import show_plan
from treadle.jobs.plan import make_plan
from treadle.jobs.run import Run
from treadle.jobs.spec import load_spec

pytest.importorskip("lightgbm")
LIGHTGBM: dict[str, Any] = {"name": "lightgbm", "params": {"n_estimators": 20, "num_leaves": 7}}


@pytest.fixture
def rows_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers so small that one does not hold 450 rows would not hold their libraries."""
    monkeypatch.setattr("treadle.engine.training_place.WORKER_SHARE", 1e-6)
    monkeypatch.setattr("treadle.engine.lightgbm_training.BINNED_SHARE", 1e5)


def of(run: Run, name: str) -> dict[str, Any]:
    row: dict[str, Any] = run.leaderboard.set_index("model").loc[name].to_dict()
    return row


def test_all_rows_are_trained_on_where_they_do_not_fit_one_worker(
    run_people: Callable[..., Run], rows_do_not_fit: None, tmp_path: Path
) -> None:
    models = [LIGHTGBM, {"name": "decision_tree", "params": {"max_depth": 3}}]
    run = run_people(models=models, explain={"rows": "test"})
    assert of(run, "lightgbm")["rows_used"] == 450
    assert of(run, "decision_tree")["rows_used"] < 450
    (warning,) = run.manifest["warnings"]
    assert warning.startswith("decision_tree: trained on a sample of about ")
    assert of(run, "lightgbm")["auc"] > 0.75
    found = run.table("explanations").to_pandas()
    assert len(found) == 150
    # As good as on one worker, where the split and the features are the same, too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("treadle.engine.training_place.WORKER_SHARE", 0.25)
        alone = run_people(models=models, artifacts={"root": str(tmp_path / "alone")})
    assert of(alone, "decision_tree")["rows_used"] == 450
    for metric, tolerance in {"auc": 0.03, "log_loss": 0.05}.items():
        # A few rows of 150 change places.
        assert np.isclose(of(run, "lightgbm")[metric], of(alone, "lightgbm")[metric], atol=tolerance)


def test_a_plan_says_where_models_are_trained(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = {"profile": "local", "workers": 2, "threads": 1, "memory": "1GB"}
    models = ["xgboost", LIGHTGBM, "random_forest", "lda"]
    spec = load_spec(people_spec(people, tmp_path / "root", "", cluster=here, models=models))
    plan = make_plan(spec, str(tmp_path / "root"))
    assert plan.describe()["training"] == {
        "over all workers": ["xgboost"],
        "on one worker": ["lightgbm", "random_forest"],
        "exactly, from sums over all workers' rows": ["lda"],
    }
    monkeypatch.setattr("treadle.engine.training_place.WORKER_SHARE", 1e-5)
    show_plan(make_plan(spec, str(tmp_path / "root")))
    held = int(1e9 * 1e-5 / (8 * len(plan.features)))
    told = capsys.readouterr().out
    assert "Training over all workers: xgboost\n" in told
    more = f"since 450 rows are more than the {held} that one holds"
    assert f"Training over all workers, {more}: lightgbm\n" in told
    assert f"Training on one worker, on a sample, {more}: random_forest\n" in told
    anywhere = load_spec(people_spec(people, tmp_path / "root", "tcp://127.0.0.1:1", models="fast"))
    described = make_plan(anywhere, str(tmp_path / "root")).describe()["training"]
    assert described["over all workers"] == ["xgboost"]
    assert "random_forest" in described["on one worker, or on a sample where that has not the room"]
