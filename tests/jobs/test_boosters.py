"""XGBoost's boosters in whole jobs: one that has no trees is predicted and explained by XGBoost itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

import treadle
from tests.conftest import people_spec
from treadle.errors import RequestError
from treadle.jobs.run import Run

NUMERIC: dict[str, Any] = {
    "tables": [{"op": "select", "columns": ["age", "income", "buys"]}],
    "features": [{"op": "scale", "columns": ["age"]}],
}
"""Two features, one of them with nulls."""


def boosted(**params: Any) -> list[dict[str, Any]]:
    return [{"name": "xgboost", "params": params}]


def test_a_linear_booster_says_whose_explainer_it_uses(run_people: Callable[..., Run], tmp_path: Path) -> None:
    run = run_people(**NUMERIC, models=boosted(booster="gblinear"), explain={"rows": "all"}, predict={"rows": "all"})
    said = "xgboost: its booster is 'gblinear', which has no trees; its own explainer is used"
    assert run.manifest["warnings"] == [said]
    events = (tmp_path / "artifacts" / "runs" / run.id / "events.jsonl").read_text().splitlines()
    (finished,) = [e for e in map(json.loads, events) if (e["stage"], e["event"]) == ("train:xgboost", "finished")]
    assert finished["warnings"] == [said]
    results = run.manifest["results"]["explain"]
    assert results["method"].startswith("pred_contribs of xgboost ")
    assert "gblinear" in results["method"]
    assert results["additivity_error"] < 1e-6
    folder = tmp_path / "artifacts" / "models" / "people" / "1"
    own = {"bundle.json", "model.json", "model.ubj", "sample.parquet", "card.md", "card.html"}
    assert {path.name for path in folder.iterdir()} == {*own, "MLmodel", "requirements.txt", "python_env.yaml"}
    assert run.leaderboard["rows_used"].tolist() == [450]
    again = run_people(**NUMERIC, models=boosted(booster="gblinear"), explain={"rows": "test"})
    assert again.manifest["warnings"] == [said]


def test_a_linear_booster_is_trained_on_all_rows_and_predicts_as_xgboost(
    run_people: Callable[..., Run], people: Path, tmp_path: Path
) -> None:
    """Against XGBoost on the table of features, in one piece: its own workers would each see their rows only."""
    run = run_people(**NUMERIC, models=boosted(booster="gblinear"), explain={"rows": "all"}, predict={"rows": "all"})
    table = run.table("features").to_pandas()
    matrix, train = table[["age", "income"]].to_numpy(np.float32), (table["split"] == "train").to_numpy()
    params = {"booster": "gblinear", "updater": "coord_descent", "objective": "binary:logistic", "nthread": 1}
    with xgboost.config_context(verbosity=0):
        target = (table["buys"] == "yes").to_numpy(np.float64)
        booster = xgboost.train(params, xgboost.DMatrix(matrix[train], target[train]), 100)
        margin = booster.predict(xgboost.DMatrix(matrix), output_margin=True)
        contributions = booster.predict(xgboost.DMatrix(matrix), pred_contribs=True)
    predictions = run.table("predictions").to_pandas()
    assert predictions["id"].tolist() == table["id"].tolist()
    np.testing.assert_allclose(predictions["margin"], margin, rtol=1e-6, atol=1e-6)
    found = run.table("explanations").to_pandas()[["age", "income", "bias"]]
    np.testing.assert_allclose(found, contributions, rtol=1e-6, atol=1e-6)
    assert (found["income"][np.isnan(matrix[:, 1])] == 0).all()
    raw = pd.read_parquet(people)
    model = treadle.load_model("people", root=run._store.url)
    explained = model.predict(raw, explain=True)
    np.testing.assert_array_equal(explained["margin"], predictions["margin"])
    np.testing.assert_array_equal(explained[found.columns], found)


@pytest.mark.slow
def test_a_bundle_of_a_linear_booster_needs_no_compiled_kernels(run_people: Callable[..., Run], people: Path) -> None:
    run = run_people(models=boosted(booster="gblinear"))
    code = (
        "import sys, pandas, treadle\n"
        f"found = treadle.load_model('people', root={run._store.url!r}).predict(pandas.read_parquet({str(people)!r}))\n"
        "compiled = ('forest', 'predict', 'treeshap', 'binning', 'tables')\n"
        "print(len(found), [name for name in compiled if f'treadle.kernels.{name}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=90)
    assert (done.stdout, done.stderr) == ("600 []\n", "")


@pytest.mark.parametrize("task", ["several classes", "numbers"])
def test_a_linear_booster_for_other_targets(run_people: Callable[..., Run], people: Path, task: str) -> None:
    target = "city" if task == "several classes" else "income"
    run = run_people(
        data={"path": str(people), "target": target, "id": "key"},
        tables=[{"op": "drop", "columns": ["buys", "joined", *({"city"} - {target})]}],
        features=[{"op": "scale", "columns": "numeric"}],
        models=boosted(booster="gblinear"),
        metric=None,
        explain={"rows": "all"},
        predict={"rows": "all"},
    )
    predictions = run.table("predictions").to_pandas().set_index("id")
    explanations = run.table("explanations").to_pandas()
    if task == "numbers":
        sums = explanations.set_index("id").sum(axis=1)
        np.testing.assert_allclose(sums, predictions.loc[sums.index, "margin"], rtol=1e-5)
    else:
        sums = explanations.set_index(["id", "class"]).sum(axis=1).unstack()
        margins = predictions[[f"margin_{c}" for c in sums.columns]]
        np.testing.assert_allclose(sums.loc[margins.index], margins, atol=1e-5)


@pytest.mark.parametrize("params", [{"booster": "dart", "rate_drop": 0.4, "subsample": 0.8}, {"rate_drop": 0.4}])
def test_a_booster_with_dropout_is_compiled_like_any_trees(
    run_people: Callable[..., Run], people: Path, tmp_path: Path, params: dict[str, Any]
) -> None:
    run = run_people(models=boosted(n_estimators=20, **params), explain={"rows": "all"}, predict={"rows": "all"})
    assert run.manifest["warnings"] == []
    assert run.manifest["results"]["explain"]["method"].startswith("TreeSHAP")
    features = run.table("features").to_pandas()
    matrix = features[list(run.model.document.features)].to_numpy(np.float32)
    with xgboost.config_context(verbosity=0):
        booster = xgboost.Booster(model_file=str(tmp_path / "artifacts" / "models" / "people" / "1" / "model.ubj"))
        expected = booster.predict(xgboost.DMatrix(matrix), output_margin=True)
    np.testing.assert_allclose(run.table("predictions").to_pandas()["margin"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"booster": "gblinear", "max_depth": 3},
            r'XGBoost says: Parameters: \{ "max_depth" \} are not used\. Leave them',
        ),
        ({"booster": "gblinear", "rate_drop": 0.1}, r"parameter 'rate_drop' of xgboost is not known to it\. Allowed: "),
        ({"booster": "gbtree", "updater": "shotgun"}, r"parameter 'updater' of xgboost is not known to it\. Allowed: "),
        ({"booster": "gblinear", "updater": "shotgum"}, r"XGBoost says: .*shotgum"),
        ({"booster": "dart", "sample_type": "heavy"}, r"XGBoost says: Invalid Input: 'heavy', valid values are: "),
        (
            {"booster": "dort"},
            r"booster of xgboost is 'dort'\. Allowed: \[gbtree, dart, gblinear\]\. Did you mean 'dart'",
        ),
        ({"booster": ["dart"]}, r"booster of xgboost is \['dart'\]\. Allowed: \[gbtree, dart, gblinear\]"),
        ({"max_depth": -3}, r"params of xgboost: XGBoost says: value -3 for Parameter max_depth should be"),
        ({"tree_method": "exact"}, r"XGBoost says: Only `hist` tree method can use `QuantileDMatrix`"),
        ({"feature_weights": [1, 2]}, r'XGBoost says: Parameters: \{ "feature_weights" \} are not used'),
    ],
    ids=str,
)
def test_params_that_the_booster_does_not_have_are_refused_in_xgboosts_words(
    people: Path, tmp_path: Path, scheduler: str, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=rf"^models: .*{words}"):
        treadle.run(people_spec(people, tmp_path / "artifacts", scheduler, models=boosted(**params)))
    assert not (tmp_path / "artifacts" / "stages").exists()
