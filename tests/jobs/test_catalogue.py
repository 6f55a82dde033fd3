"""All models of the catalogue in whole jobs on a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

import treadle
from treadle.engine.models.catalogue import CATALOGUE
from treadle.jobs.run import Run

FEW: dict[str, Any] = {name: {"n_estimators": 10} for name in CATALOGUE if "Forest" in str(CATALOGUE[name].estimators)}
FEW |= {name: {"n_estimators": 10} for name in ("xgboost", "lightgbm", "catboost", "gradient_boosting", "extra_trees")}
FEW |= {"mlp": {"hidden_layer_sizes": [5]}, "ada_boost": {"n_estimators": 10}, "qda": {"reg_param": 0.01}}
CLASSIFIERS = [name for name, entry in CATALOGUE.items() if "binary" in entry.tasks]
NO_PROBABILITIES = {"ridge", "linear_svm"}


def demo(root: Path, scheduler: str, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "treadle/v1",
        "name": "all-models",
        "data": {"path": "sklearn://breast_cancer", "target": "target", "positive_class": "malignant", "partitions": 3},
        "features": [{"op": "scale", "columns": "numeric"}],
        "models": [{"name": name, "params": FEW.get(name, {})} for name in CLASSIFIERS],
        "explain": {"rows": "none"},
        "artifacts": {"root": str(root)},
        "cluster": {"profile": "address", "address": scheduler},
        **changes,
    }


def test_every_classifier_has_its_line_on_the_leaderboard(tmp_path: Path, scheduler: str) -> None:
    run = treadle.run(demo(tmp_path, scheduler))
    board = run.leaderboard.set_index("model")
    assert sorted(board.index) == sorted(CLASSIFIERS)
    assert len(CLASSIFIERS) >= 14
    assert board["error"].isna().all()
    assert (board["rows_used"] == run.manifest["results"]["split"]["train_rows"]).all()
    real = board.drop(index="dummy")
    assert (real["auc"] > 0.9).all()
    assert board.loc["dummy", "auc"] == 0.5
    for metric in ("log_loss", "brier"):
        assert set(board.index[board[metric].isna()]) == NO_PROBABILITIES
    assert set(run.manifest["results"]["evaluate"]["calibration"]) == set(CLASSIFIERS) - NO_PROBABILITIES
    said = [text for text in run.manifest["warnings"] if "it gives no probabilities" in text]
    assert {text.partition(":")[0] for text in said} == NO_PROBABILITIES


@pytest.mark.parametrize("name", ["linear_svm", "mlp", "k_neighbours", "ada_boost"])
def test_a_model_alone_is_published_and_explained(tmp_path: Path, scheduler: str, name: str) -> None:
    models = [{"name": name, "params": FEW.get(name, {})}]
    columns = ["mean_radius", "mean_texture", "worst_area", "worst_symmetry", "target"]
    changes: dict[str, Any] = {
        "tables": [{"op": "select", "columns": columns}],
        "explain": {"rows": "test", "dtype": "float64"},
    }
    run = treadle.run(demo(tmp_path, scheduler, models=models, **changes))
    predictions = run.table("predictions").to_pandas().set_index("id").sort_index()
    truth = load_breast_cancer().target[predictions.index] == 0
    assert run.leaderboard["auc"][0] == pytest.approx(roc_auc_score(truth, predictions["margin"]), abs=1e-12)
    assert predictions["score"].between(0, 1).all()
    assert ((predictions["class"] == "malignant") == (predictions["score"] > 0.5)).all()
    if name == "linear_svm":
        assert ((predictions["margin"] > 0) == (predictions["score"] > 0.5)).all()
    explanations = run.table("explanations").to_pandas().set_index("id").sort_index()
    np.testing.assert_allclose(explanations.sum(axis=1), predictions["margin"], atol=1e-6)
    method = {"linear_svm": "linear, ", "ada_boost": "TreeSHAP"}.get(name, "Shapley values, exact over all coalitions")
    assert run.manifest["results"]["explain"]["method"].startswith(method)
    raw = load_breast_cancer(as_frame=True).data.loc[predictions.index]
    raw.columns = raw.columns.str.replace(" ", "_")
    again = treadle.load_model("all-models", root=str(tmp_path)).predict(raw)
    np.testing.assert_array_equal(np.sort(again["margin"]), np.sort(predictions["margin"]))


def test_nulls_are_refused_by_name_before_training(run_people: Callable[..., Run]) -> None:
    numeric: dict[str, Any] = {
        "tables": [{"op": "select", "columns": ["age", "income", "buys"]}],
        "features": [{"op": "scale", "columns": ["age"]}],
    }
    names = [name for name in CLASSIFIERS if not CATALOGUE[name].nulls]
    run = run_people(**numeric, models=[*names, "dummy", "decision_tree"], explain={"rows": "none"})
    board = run.leaderboard.set_index("model")
    for name in names:
        words = f"features have nulls, which {name} does not take; add {{op: impute, columns: [income]}} to features"
        assert board.loc[name, "error"] == words
    assert {"gradient_boosting", "ada_boost", "mlp", "k_neighbours"} <= set(names)
    assert board.loc[["dummy", "decision_tree"], "error"].isna().all()


def test_constraints_reach_the_library_and_wrong_names_the_leaderboard(run_people: Callable[..., Run]) -> None:
    def model(label: str, name: str, feature: str) -> dict[str, Any]:
        params = {"n_estimators": 5, "monotone_constraints": {feature: -1}}
        return {"name": name, "label": label, "params": params}

    models = [model("up", "xgboost", "age"), model("typo", "lightgbm", "agee"), "dummy"]
    run = run_people(models=models, predict={"rows": "all"}, explain={"rows": "none"})
    board = run.leaderboard.set_index("model")
    assert board.loc["typo", "error"].startswith(
        "monotone_constraints of typo: there is no feature 'agee'. Features: ["
    )
    assert board.loc["typo", "error"].endswith("Did you mean 'age'?")
    # The target rises with age, so that a model that may not do so knows little.
    assert board.loc["up", "auc"] < 0.75 < run_people(explain={"rows": "none"}).leaderboard["auc"][0]
