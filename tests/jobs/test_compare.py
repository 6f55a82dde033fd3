"""Whole jobs whose models are compared by folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec, two_workers
from treadle.engine.job import MODEL_NAMES, Job, Model
from treadle.engine.models.decision import decide
from treadle.engine.store import Store
from treadle.engine.trials import placement
from treadle.engine.trials.outcome import key_of, load, out_of_fold, path_of
from treadle.jobs.run import Run

QUICK: list[Any] = ["lda", {"name": "decision_tree", "params": {"max_depth": 3}}, "naive_bayes", "dummy"]
SECONDS = ["train_seconds", "predict_seconds", "peak_bytes"]


def numbers(run: Run, table: str = "leaderboard") -> pd.DataFrame:
    """What may not differ from run to run."""
    return run.table(table).to_pandas().drop(columns=SECONDS, errors="ignore")


def test_partitions_change_nothing(people: Path, tmp_path: Path, scheduler: str) -> None:
    runs = []
    for partitions in (1, 5):
        data = {"path": str(people), "target": "buys", "positive_class": "yes", "id": "key", "partitions": partitions}
        sections: dict[str, Any] = {"data": data, "models": QUICK, "compare": {"folds": 4}}
        runs.append(treadle.run(people_spec(people, tmp_path / str(partitions), scheduler, **sections)))
    pd.testing.assert_frame_equal(numbers(runs[0]), numbers(runs[1]), rtol=1e-9)
    pd.testing.assert_frame_equal(numbers(runs[0], "folds"), numbers(runs[1], "folds"), rtol=1e-9)
    board, by_fold = numbers(runs[0]), numbers(runs[0], "folds")
    assert board["model"].tolist()[-1] == "dummy"
    for metric in ("auc", "log_loss", "mcc"):
        means = by_fold.groupby("model")[metric].mean()
        np.testing.assert_allclose(board[metric], means[board["model"]], rtol=1e-12)
    assert np.isnan(board["p_value"][0])
    assert 0 < board["p_value"][1] <= 1
    results = runs[0].manifest["results"]
    assert sum(results["folds"]["rows"]) == results["split"]["train_rows"]
    assert runs[0].model.document.metrics["test_auc"] == results["evaluate"]["held_out"]["auc"]


def test_another_run_makes_no_trial_twice(run_people: Callable[..., Run], tmp_path: Path) -> None:
    first = run_people(models=QUICK, compare={"folds": 3})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("trials-*/*/*.parquet")}
    assert len(before) == len(QUICK) * 3
    more = run_people(models=[*QUICK, "ridge"], compare={"folds": 3})
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").rglob("trials-*/*/*.parquet")}
    assert len(after) == len(before) + 3
    assert {path: after[path] for path in before} == before
    shared = numbers(more)
    pd.testing.assert_frame_equal(
        shared[shared["model"] != "ridge"].drop(columns="p_value").reset_index(drop=True),
        numbers(first).drop(columns="p_value"),
    )


def test_a_target_of_chance_is_not_learnt_through_features(people: Path, tmp_path: Path, scheduler: str) -> None:
    """Means of the target by a column of many values are fitted without the fold that they are tested on."""
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"code": [f"c{i}" for i in rng.integers(0, 150, 900)], "y": rng.choice(["a", "b"], 900)})
    path = tmp_path / "chance.parquet"
    frame.to_parquet(path)
    run = treadle.run(
        people_spec(
            people,
            tmp_path / "root",
            scheduler,
            data={"path": str(path), "target": "y"},
            tables=[],
            features=[{"op": "target_encode", "columns": ["code"]}],
            models=["decision_tree", "logistic_regression"],
            compare={"folds": 10},
            explain={"rows": "none"},
        )
    )
    board = run.leaderboard.set_index("model")
    assert (abs(board["auc"] - 0.5) < 0.06).all()


def test_all_models_of_a_task_are_compared_and_those_that_fail_say_why(run_people: Callable[..., Run]) -> None:
    """Features with nulls: some models take them."""
    run = run_people(
        models="fast",
        compare={"folds": 2},
        tables=[{"op": "drop", "columns": ["joined"]}],
        features=[{"op": "one_hot", "columns": ["city"]}],
    )
    board = run.leaderboard.set_index("model")
    assert set(board.index) < set(MODEL_NAMES)
    assert {"lda", "ridge", "xgboost", "dummy"} <= set(board.index)
    assert "lasso" not in board.index
    failed = board[board["error"].notna()]
    assert "features have nulls, which lda does not take; add {op: impute, columns: [income]}" in failed["error"]["lda"]
    assert board["error"].isna()[["xgboost", "decision_tree", "dummy"]].all()


@pytest.mark.parametrize("target", ["income", "city"])
def test_numbers_and_several_classes(run_people: Callable[..., Run], people: Path, target: str) -> None:
    models: list[Any] = ["linear_regression" if target == "income" else "naive_bayes", "decision_tree"]
    run = run_people(
        data={"path": str(people), "target": target, "id": "key"},
        tables=[{"op": "drop", "columns": ["joined", "buys", "city" if target == "income" else "income"]}],
        features=[],
        models=models,
        metric=None,
        compare={"folds": 3},
    )
    board = run.leaderboard
    metric = "rmse" if target == "income" else "log_loss"
    assert board[metric].tolist() == sorted(board[metric])
    assert (board[f"{metric}_std"] > 0).all()
    assert board["error"].isna().all()


def test_without_rows_for_the_test_there_are_the_folds_alone(people: Path, tmp_path: Path, scheduler: str) -> None:
    frame = pd.read_parquet(people)
    frame["part"] = np.arange(len(frame)) % 3
    path = tmp_path / "parts.parquet"
    frame.to_parquet(path)
    data = {"path": str(path), "target": "buys", "positive_class": "yes", "id": "key"}
    split = {"kind": "folds", "column": "part"}
    run = treadle.run(people_spec(people, tmp_path / "root", scheduler, data=data, split=split, models=QUICK))
    assert run.table("folds").rows == 3 * len(QUICK)
    assert run.table("predictions").rows == 0
    assert run.manifest["results"]["evaluate"]["held_out"] is None
    assert "every row has a fold, so that there are no test rows beside the folds" in run.manifest["warnings"]
    assert "part" not in run.model.document.features


@pytest.mark.parametrize("decision", [{"calibrate": "isotonic", "threshold": "f1"}, {"threshold": 0.3}])
def test_the_best_decides_by_its_scores_out_of_folds(
    run_people: Callable[..., Run], people: Path, tmp_path: Path, decision: dict[str, Any]
) -> None:
    run = run_people(models=["ridge", "dummy"], compare={"folds": 3}, decision=decision)
    model = run.model.model
    (folder,) = (tmp_path / "artifacts/stages").glob("trials-*")
    store, base = Store(str(tmp_path / "artifacts")), folder.name.removeprefix("trials-")
    job = Job.model_validate({"name": "x", "data": {"path": "x", "target": "y"}, "decision": decision})
    named = 0.3 if decision["threshold"] == 0.3 else 0.5
    key = key_of(Model(name="ridge"), 7, named)
    outcomes = [load(store, path_of(base, key, fold)) for fold in range(3)]
    margin, score, target = out_of_fold(store, base, [o for o in outcomes if o is not None])
    assert len(margin) == 450
    calibration, threshold = decide(job.decision, "binary", margin, score, target.astype(int))
    assert model.threshold == threshold
    predictions = run.table("predictions").to_pandas()
    expected = predictions["score"] > threshold
    np.testing.assert_array_equal(predictions["class"] == "yes", expected)
    if calibration is not None:
        own = predictions["margin"].to_numpy()
        np.testing.assert_allclose(predictions["score"], calibration.apply(own, 1 / (1 + np.exp(-own))), rtol=1e-12)
    truth = pd.read_parquet(people).set_index("key")["buys"][predictions["id"]].to_numpy()
    held_out = run.manifest["results"]["evaluate"]["held_out"]
    assert held_out["accuracy"] == pytest.approx((truth == predictions["class"]).mean())
    board = run.leaderboard.set_index("model")
    ends = np.cumsum(run.manifest["results"]["folds"]["rows"])[:-1]
    at = [((score > named) == (target == 1))[rows].mean() for rows in np.split(np.arange(450), ends)]
    assert board["accuracy"]["ridge"] == pytest.approx(np.mean(at))


@pytest.mark.slow
def test_data_that_no_worker_holds_give_the_same(
    people: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models that have one solution; others are trained on as many rows, over the workers or on one of them."""
    runs = []
    models = ["lda", "logistic_regression", "naive_bayes", "decision_tree", "xgboost", "qda"]
    for share in (0.5, 0.0):
        monkeypatch.setattr(placement, "HELD_SHARE", share)
        data = {"path": str(people), "target": "buys", "positive_class": "yes", "id": "key", "partitions": 3}
        sections: dict[str, Any] = {
            "data": data,
            "models": models,
            "compare": {"folds": 3},
            "decision": {"calibrate": "sigmoid"},
            "explain": {"rows": "none"},
        }
        runs.append(treadle.run(people_spec(people, tmp_path / str(share), scheduler, **sections)))
    told = [run.manifest["results"]["compare"]["placement"] for run in runs]
    assert told[0].startswith("each trial on a thread of a worker: the rows of 3 folds and of 1 trials take about ")
    assert told[1].startswith("each trial over all workers: ")
    assert "more than the 0 MiB that it has room for" in told[1]
    boards = [numbers(run).set_index("model").drop(columns="p_value") for run in runs]
    assert boards[1].loc["qda", "error"].startswith("the covariance of class")
    exact = ["lda", "logistic_regression", "naive_bayes", "decision_tree"]
    pd.testing.assert_frame_equal(boards[0].loc[exact], boards[1].loc[exact], rtol=1e-6)
    assert boards[1].loc["xgboost", "rows_used"] == 300
    assert abs(boards[0].loc["xgboost", "auc"] - boards[1].loc["xgboost", "auc"]) < 0.05
    one, other = (run.table("predictions").to_pandas().sort_values("id", ignore_index=True) for run in runs)
    pd.testing.assert_frame_equal(one, other, rtol=1e-6)


@pytest.mark.slow
def test_a_model_that_takes_too_long_is_a_line_of_the_leaderboard(people: Path, tmp_path: Path) -> None:
    """It is ended with its worker, and all others are there."""
    endless = {"name": "mlp", "params": {"max_iter": 10**8, "n_iter_no_change": 10**8, "tol": 0.0, "solver": "sgd"}}
    with two_workers(tmp_path / "dask") as cluster:
        spec = people_spec(
            people,
            tmp_path / "root",
            cluster.scheduler_address,
            models=[endless, *QUICK],
            compare={"folds": 2, "time_limit": "4s"},
            explain={"rows": "none"},
        )
        run = treadle.run(spec)
        board = run.leaderboard.set_index("model")
        assert board["error"]["mlp"] == "training took longer than compare.time_limit, 4 s"
        assert board["error"].drop("mlp").isna().all()
        assert run.manifest["results"]["evaluate"]["best"] != "mlp"
        # What might have been for want of time is tried again; all else is there.
        again = treadle.run(spec)
        statuses = {record["stage"]: record["status"] for record in again.manifest["stages"]}
        assert statuses["compare"] == statuses["refit"] == "finished"
        pd.testing.assert_frame_equal(numbers(again), numbers(run))
