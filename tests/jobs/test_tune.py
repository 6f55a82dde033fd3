"""Whole jobs whose models are tuned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec
from treadle.jobs.run import Run

SECONDS = ["train_seconds", "predict_seconds", "peak_bytes", "seconds"]
MODELS: list[Any] = ["decision_tree", "ridge", {"name": "xgboost", "params": {"n_estimators": 5}}, "dummy"]
SECTIONS: dict[str, Any] = {
    "models": MODELS,
    "compare": {"folds": 4},
    "tune": {"models": ["decision_tree", "xgboost"], "trials": 8},
    "explain": {"rows": "none"},
}


def numbers(run: Run, table: str) -> pd.DataFrame:
    """What may not differ from run to run."""
    return run.table(table).to_pandas().drop(columns=SECONDS, errors="ignore")


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("trials-*/*/*.parquet")}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> list[Run]:
    """The same job into two roots."""
    from tests.conftest import write_people

    folder = tmp_path_factory.mktemp("tune")
    people = write_people(folder / "people.parquet")
    return [treadle.run(people_spec(people, folder / root, scheduler, **SECTIONS)) for root in ("one", "two")]


def test_the_same_spec_and_workers_find_the_same(twice: list[Run]) -> None:
    one, other = twice
    for table in ("leaderboard", "folds", "trials"):
        pd.testing.assert_frame_equal(numbers(one, table), numbers(other, table))
    assert one.table("predictions").to_arrow().equals(other.table("predictions").to_arrow())


def test_what_is_tuned_is_no_worse_and_all_rows_are_there(twice: list[Run]) -> None:
    run = twice[0]
    board = run.leaderboard.set_index("model")
    plain = {"decision_tree", "ridge", "xgboost", "dummy"}
    assert set(board.index) - plain == {"decision_tree-tuned", "xgboost-tuned"}
    for name in ("decision_tree", "xgboost"):
        assert board["auc"][f"{name}-tuned"] > board["auc"][name]
    trials = run.table("trials").to_pandas()
    assert trials.groupby("model")["number"].apply(list).to_dict() == {
        "decision_tree": list(range(9)),
        "xgboost": list(range(9)),
    }
    assert set(trials["state"]) <= {"complete", "pruned"}
    assert (trials["folds"] == 4)[trials["state"] == "complete"].all()
    assert (trials["folds"] == 2)[trials["state"] == "pruned"].all()
    for name, of_model in trials[trials["state"] == "complete"].groupby("model"):
        assert of_model["value"].max() == pytest.approx(board["auc"][f"{name}-tuned"], rel=1e-12)
        assert of_model["value"].iloc[0] == pytest.approx(board["auc"][name], rel=1e-12)
    assert json.loads(trials["params"][trials["model"] == "xgboost"].iloc[1])["n_estimators"] == 5
    folds = run.table("folds").to_pandas().groupby("model")["auc"].mean()
    np.testing.assert_allclose(folds[board.index], board["auc"], rtol=1e-12)


def test_the_best_of_all_is_trained_and_published(
    run_people: Callable[..., Run], people: Path, tmp_path: Path, scheduler: str
) -> None:
    """The tuned model is the one that its parameters give without tuning."""
    run = run_people(**{**SECTIONS, "models": ["decision_tree", "dummy"], "tune": {"trials": 6}})
    best = run.manifest["results"]["evaluate"]["best"]
    assert best == "decision_tree-tuned" == run.leaderboard["model"][0]
    trials = run.table("trials").to_pandas()
    complete = trials[trials["state"] == "complete"]
    params = json.loads(complete["params"][complete["value"].idxmax()])
    plain = treadle.run(
        people_spec(people, tmp_path / "plain", scheduler, models=[{"name": "decision_tree", "params": params}])
    )
    for column in ("score", "margin"):
        np.testing.assert_array_equal(
            run.table("predictions").to_pandas()[column], plain.table("predictions").to_pandas()[column]
        )
    assert run.model.document.metrics["test_auc"] == plain.leaderboard["auc"][0]


@pytest.mark.slow
def test_more_trials_go_on_with_what_is_there(run_people: Callable[..., Run], tmp_path: Path) -> None:
    tune: dict[str, Any] = {"models": ["decision_tree"], "trials": 4}
    few = numbers(run_people(**{**SECTIONS, "tune": tune}), "trials")
    before = files(tmp_path / "artifacts")
    many = numbers(run_people(**{**SECTIONS, "tune": {**tune, "trials": 7}}), "trials")
    after = files(tmp_path / "artifacts")
    assert len(many) == 8
    pd.testing.assert_frame_equal(many[: len(few)], few)
    assert {path: after[path] for path in before} == before
    assert len(after) > len(before)


def test_without_time_there_are_the_models_of_the_spec(run_people: Callable[..., Run]) -> None:
    sections = {**SECTIONS, "models": ["decision_tree", "ridge", "dummy"]}
    plain = run_people(**{**sections, "tune": None})
    hurried = run_people(**{**sections, "tune": {"models": 1, "budget": "1us"}})
    pd.testing.assert_frame_equal(numbers(hurried, "leaderboard"), numbers(plain, "leaderboard"))
    trials = hurried.table("trials").to_pandas()
    best = plain.leaderboard["model"][0]
    assert trials[["model", "number", "state"]].to_numpy().tolist() == [[best, 0, "complete"]]


def test_a_space_of_the_spec_is_kept_to_and_numbers_are_tuned(run_people: Callable[..., Run], people: Path) -> None:
    """By an error, where less is better; some of the parameters cannot be trained."""
    space = {
        "small": {
            "max_depth": {"choices": [1, 2]},
            "max_features": [0.5, 1],
            "criterion": {"choices": ["squared_error"]},
        },
        "k_neighbours": {"n_neighbors": [200, 600]},
    }
    run = run_people(
        data={"path": str(people), "target": "age", "id": "key"},
        features=[{"op": "impute", "columns": ["log_income"]}, {"op": "one_hot", "columns": ["city", "buys"]}],
        tables=[
            {"op": "derive", "name": "log_income", "sql": "ln(income)"},
            {"op": "drop", "columns": ["income", "joined"]},
        ],
        models=[{"name": "decision_tree", "label": "small", "params": {"min_samples_leaf": 7}}, "k_neighbours"],
        metric="rmse",
        compare={"folds": 3},
        tune={"models": ["small", "k_neighbours"], "trials": 8, "space": space},
        explain={"rows": "none"},
    )
    trials = run.table("trials").to_pandas()
    small = trials[trials["model"] == "small"]
    for params in map(json.loads, small["params"][1:]):
        assert params["max_depth"] in (1, 2)
        assert 0.5 <= params["max_features"] <= 1
        assert (params["criterion"], params["min_samples_leaf"]) == ("squared_error", 7)
    near = trials[trials["model"] == "k_neighbours"]
    too_many = near["params"].map(lambda text: json.loads(text).get("n_neighbors", 5)) > 300
    assert too_many.any()
    assert (near["state"] == "failed").tolist() == too_many.tolist()
    assert near["error"].notna().tolist() == too_many.tolist()
    board = run.leaderboard.set_index("model")
    assert board["rmse"].is_monotonic_increasing
    assert board["rmse"]["small-tuned"] <= board["rmse"]["small"]
    assert board["error"].isna().all()
