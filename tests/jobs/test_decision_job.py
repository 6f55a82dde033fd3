"""A job with a threshold of its own: one number decides classes, metrics, rates by group and the bundle's answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
)
from typer.testing import CliRunner

import treadle
from treadle.errors import RequestError
from treadle.jobs.cli import app
from treadle.jobs.run import Run

METRICS: dict[str, Any] = {
    "accuracy": accuracy_score,
    "recall": recall_score,
    "precision": precision_score,
    "f1": f1_score,
    "kappa": cohen_kappa_score,
    "mcc": matthews_corrcoef,
}


@pytest.mark.parametrize("model", ["xgboost", "linear_svm"])
def test_a_threshold_decides_everything_that_has_classes(
    run_people: Callable[..., Run], people: Path, tmp_path: Path, model: str
) -> None:
    data = {"path": str(people), "target": "buys", "positive_class": "yes", "id": "key", "protected": ["member"]}
    changes: dict[str, Any] = {"data": data, "models": [model], "explain": {"rows": "none"}}
    plain = run_people(**changes)
    run = run_people(**changes, decision={"threshold": 0.3})
    statuses = {record["stage"]: record["status"] for record in run.manifest["stages"]}
    assert (statuses["features"], statuses["split"]) == ("cached", "cached")
    assert statuses[f"train:{model}"] == "finished"

    predictions = run.table("predictions").to_pandas().set_index("id").sort_index()
    before = plain.table("predictions").to_pandas().set_index("id").sort_index()
    pd.testing.assert_frame_equal(predictions[["score", "margin"]], before[["score", "margin"]])
    said = predictions["class"] == "yes"
    assert (said == (predictions["score"] > 0.3)).all()
    assert ((before["class"] == "yes") == (before["score"] > 0.5)).all()
    assert said.sum() > (before["class"] == "yes").sum()

    raw = pd.read_parquet(people).set_index("key").loc[predictions.index]
    truth = raw["buys"] == "yes"
    (row,) = run.leaderboard.to_dict("records")
    for name, metric in METRICS.items():
        assert row[name] == pytest.approx(metric(truth, said), abs=1e-12), name
    assert row["auc"] == plain.leaderboard["auc"][0]
    evaluation = run.manifest["results"]["evaluate"]
    assert evaluation["thresholds"] == {model: 0.3}
    assert plain.manifest["results"]["evaluate"]["thresholds"] == {model: 0.5}
    for value, rates in evaluation["groups"]["member"].items():
        assert rates["selection_rate"] == pytest.approx(said[raw["member"] == (value == "True")].mean(), abs=1e-12)

    bundle = treadle.load_model("people", root=str(tmp_path / "artifacts"))
    again = bundle.predict(raw.rename_axis("key").reset_index().drop(columns="buys")).set_index("id").sort_index()
    assert (again["class"] == predictions["class"]).all()
    assert bundle.model.threshold == 0.3
    assert bundle.document.metrics["f1"] == row["f1"]
    shown = CliRunner().invoke(app, ["show", run.id, "--root", str(tmp_path / "artifacts")]).output
    assert "threshold" in shown
    assert "0.3000" in shown
    assert all(record["status"] != "finished" for record in run_people(**changes).manifest["stages"][:-1])


@pytest.mark.parametrize(
    ("target", "decision", "said"),
    [
        ("age", {"threshold": 0.3}, "decision: it is for classes, and the target 'age' asks for numbers"),
        ("city", {"threshold": 0.3}, "decision.threshold: it is for two classes, and the target 'city' has more"),
        ("buys", {"calibrate": "isotonic"}, "decision.calibrate: .* needs folds"),
        ("buys", {"threshold": "f1"}, "decision.threshold: .* needs folds"),
    ],
)
def test_a_decision_that_the_target_does_not_take_is_refused(
    run_people: Callable[..., Run], people: Path, target: str, decision: dict[str, Any], said: str
) -> None:
    changes: dict[str, Any] = {
        "data": {"path": str(people), "target": target, "id": "key"},
        "tables": [{"op": "select", "columns": sorted({"member", "income", target})}],
        "features": [{"op": "impute", "columns": ["income"]}],
        "models": ["dummy"],
        "metric": None,
    }
    with pytest.raises(RequestError, match=said):
        run_people(**changes, decision=decision)


def test_calibrated_models_may_be_chosen_by_their_probabilities() -> None:
    from treadle.engine.job import Job
    from treadle.engine.models.catalogue import check_models

    spec: dict[str, Any] = {
        "name": "a", "data": {"path": "x", "target": "y"}, "models": ["linear_svm"], "metric": "brier",
    }  # fmt: skip
    with pytest.raises(RequestError, match="needs probabilities, and none of the models gives them"):
        check_models(Job.model_validate(spec), "binary")
    check_models(Job.model_validate({**spec, "decision": {"calibrate": "sigmoid"}}), "binary")
