"""The census data with its official split, held against numbers of independent libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from treadle.jobs.plan import make_plan
from treadle.jobs.run import Run
from treadle.jobs.spec import load_spec

CATEGORICAL = [
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
]


def adult_spec(shared: Path, root: Path, scheduler: str, **changes: Any) -> dict[str, Any]:
    """The feature set `full_features` of reference.json: fnlwgt left out, null a level of its own."""
    spec = {
        "apiVersion": "treadle/v1",
        "name": "adult",
        "data": {
            "path": str(shared / "adult" / "adult_train.parquet"),
            "target": "income",
            "positive_class": ">50K",
            "protected": ["race", "sex"],
        },
        "tables": [{"op": "drop", "columns": ["fnlwgt"]}],
        "features": [
            {
                "op": "one_hot",
                "columns": [c for c in CATEGORICAL if c not in ("workclass", "occupation", "native-country")],
            },
            {"op": "one_hot", "columns": ["workclass", "occupation", "native-country"], "missing": "?"},
            {"op": "scale", "columns": "all"},
        ],
        "split": {"kind": "path", "path": str(shared / "adult" / "adult_test.parquet")},
        "models": [
            {"name": "xgboost", "params": {"n_estimators": 200, "max_depth": 6, "learning_rate": 0.1}},
            {"name": "logistic_regression", "params": {"C": 1.0, "tol": 1e-10, "max_iter": 10_000}},
        ],
        "metric": "auc",
        "explain": {"rows": "none"},
        "artifacts": {"root": str(root)},
        "cluster": {"profile": "address", "address": scheduler},
    }
    return {**spec, **changes}


@pytest.fixture(scope="module")
def adult(shared_data: Path, tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Run:
    return treadle.run(adult_spec(shared_data, tmp_path_factory.mktemp("adult"), scheduler))


def test_reaches_the_reference(adult: Run, shared_data: Path) -> None:
    board = adult.leaderboard.set_index("model")
    assert board.loc["xgboost", "auc"] >= 0.925
    reference = json.loads((shared_data / "reference.json").read_text())["fairness_adult"]["results"]
    expected = reference["race/full_features"]["before"]
    assert len(adult.model.document.features) == reference["race/full_features"]["n_features"]
    assert abs(board.loc["logistic_regression", "accuracy"] - expected["accuracy"]) <= 0.002
    # The reference's AUC and ours come from the same converged optimum.
    assert abs(board.loc["logistic_regression", "auc"] - expected["auc"]) <= 1e-5


def test_rates_by_group_equal_the_reference(shared_data: Path, tmp_path: Path, scheduler: str) -> None:
    spec = adult_spec(shared_data, tmp_path, scheduler)
    spec["models"] = spec["models"][1:]
    groups = treadle.run(spec).manifest["results"]["evaluate"]["groups"]
    reference = json.loads((shared_data / "reference.json").read_text())["fairness_adult"]["results"]
    for column, privileged in (("race", "White"), ("sex", "Male")):
        expected = reference[f"{column}/full_features"]["before"]["by_group"]["privileged"]
        for rate in ("n", "selection_rate", "tpr", "fpr", "accuracy"):
            assert groups[column][privileged][rate] == pytest.approx(expected[rate], abs=2e-4), (column, rate)


@pytest.mark.slow
def test_results_do_not_depend_on_the_partitioning(shared_data: Path, tmp_path: Path, scheduler: str) -> None:
    found = []
    for partitions in (1, 3, 16):
        spec = adult_spec(shared_data, tmp_path / str(partitions), scheduler)
        spec["data"]["partitions"] = partitions
        spec["models"][0]["params"]["n_estimators"] = 50
        run = treadle.run(spec)
        assert len(run.table("features").files()) == 2 * partitions
        found.append((run.table("features").to_pandas(), run.leaderboard.set_index("model").sort_index()))
    table, board = found[0]
    for other_table, other_board in found[1:]:
        pd.testing.assert_frame_equal(table, other_table, rtol=1e-6)
        for metric in ("auc", "accuracy", "log_loss", "brier", "average_precision", "f1", "kappa"):
            np.testing.assert_allclose(board[metric], other_board[metric], atol=1e-3)


def test_the_spec_of_the_readme_is_one_of_this_data(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "adult.yaml").write_text(readme.partition("```yaml\n")[2].partition("```")[0])
    monkeypatch.chdir(shared_data / "adult")
    spec = load_spec(tmp_path / "adult.yaml")
    plan = make_plan(spec, str(tmp_path / "artifacts"))
    assert plan.inputs.main.rows == 32_561
    assert [stage.name for stage in plan.stages][-1] == "publish"


def test_prediction_of_raw_rows_equals_the_run(adult: Run, shared_data: Path) -> None:
    raw = pd.read_parquet(shared_data / "adult" / "adult_test.parquet").drop(columns="income")
    found = adult.model.predict(raw)
    np.testing.assert_allclose(found["score"], adult.table("predictions").to_pandas()["score"], atol=1e-6)


def test_contributions_of_every_row_add_up(shared_data: Path, tmp_path: Path, scheduler: str) -> None:
    spec = adult_spec(shared_data, tmp_path, scheduler, explain={"rows": "all"}, predict={"rows": "all"})
    spec["models"] = [{"name": "xgboost", "params": {"n_estimators": 20, "max_depth": 5}}]
    run = treadle.run(spec)
    explanations = run.table("explanations").to_pandas().set_index("id")
    margins = run.table("predictions").to_pandas().set_index("id")["margin"]
    assert len(explanations) == len(margins) == 48_842
    np.testing.assert_allclose(explanations.sum(axis=1), margins.loc[explanations.index], atol=1e-4)
