"""Whole jobs on small data: what a run makes, what it skips, and what its parts agree on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec, write_people
from treadle.errors import RequestError
from treadle.jobs.commands import console
from treadle.jobs.run import Run, list_runs


def statuses(run: Run) -> dict[str, str]:
    return {record["stage"]: record["status"] for record in run.manifest["stages"]}


def test_a_run_publishes_tables_leaderboard_and_model(run_people: Callable[..., Run]) -> None:
    run = run_people(models=["xgboost", "logistic_regression", "random_forest"])
    assert run.status == "succeeded"
    assert set(run.tables) == {"features", "leaderboard", "predictions", "explanations"}
    board = run.leaderboard
    assert sorted(board["model"]) == ["logistic_regression", "random_forest", "xgboost"]
    assert board["auc"].is_monotonic_decreasing
    assert (board["auc"] > 0.7).all()
    assert (board["rows_used"] == 450).all()
    assert (board["peak_bytes"] > 0).all()
    assert run.table("predictions").rows == run.table("explanations").rows == 150
    assert run.model.reference == "people:1"
    assert next(iter(run.importance)) in run.table("features").to_pandas().columns


@pytest.mark.parametrize("model", ["xgboost", "logistic_regression", "random_forest", "decision_tree", "extra_trees"])
def test_contributions_add_up_to_the_margin(run_people: Callable[..., Run], model: str) -> None:
    run = run_people(models=[model], explain={"rows": "all"}, predict={"rows": "all"})
    predictions = run.table("predictions").to_pandas().set_index("id")
    explanations = run.table("explanations").to_pandas().set_index("id")
    assert len(explanations) == 600
    np.testing.assert_allclose(explanations.sum(axis=1), predictions.loc[explanations.index, "margin"], atol=1e-4)


def test_the_largest_contributions_of_each_row(run_people: Callable[..., Run]) -> None:
    whole = run_people(models=["xgboost"]).table("explanations").to_pandas().set_index("id")
    run = run_people(models=["xgboost"], explain={"top_k": 3})
    assert statuses(run)["train:xgboost"] == "cached"
    found = run.table("explanations").to_pandas().set_index("id").loc[whole.index]
    pairs = [name for n in (1, 2, 3) for name in (f"feature_{n}", f"contribution_{n}")]
    assert list(found.columns) == [*pairs, "others", "bias"]
    for row, expected in zip(found.to_dict("records"), whole.drop(columns="bias").to_dict("records"), strict=True):
        kept = {row[f"feature_{n}"]: row[f"contribution_{n}"] for n in (1, 2, 3)}
        assert {name: expected[name] for name in kept} == kept
        assert [abs(value) for value in kept.values()] == sorted(map(abs, expected.values()), reverse=True)[:3]
    sums = found.drop(columns=["feature_1", "feature_2", "feature_3"]).sum(axis=1)
    np.testing.assert_allclose(sums, whole.sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    "model", ["xgboost", pytest.param("logistic_regression", marks=pytest.mark.slow), "random_forest"]
)
def test_several_classes(run_people: Callable[..., Run], people: Path, model: str) -> None:
    run = run_people(
        data={"path": str(people), "target": "city", "id": "key"},
        tables=[{"op": "drop", "columns": ["buys", "joined"]}],
        features=[],
        models=[model] if model == "xgboost" else ["xgboost", model],
        metric="accuracy",
        explain={"rows": "all"},
        predict={"rows": "all"},
    )
    predictions = run.table("predictions").to_pandas()
    scores = predictions[[c for c in predictions if c.startswith("score_")]]
    assert scores.shape[1] == 4
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-5)
    explanations = run.table("explanations").to_pandas()
    assert len(explanations) == 4 * len(predictions)
    sums = explanations.set_index(["id", "class"]).sum(axis=1).unstack()
    margins = predictions.set_index("id")[[f"margin_{c}" for c in sums.columns]]
    np.testing.assert_allclose(sums.loc[margins.index], margins, atol=1e-4)
    assert any("no target" in text for text in run.manifest["warnings"])


def test_regression(people: Path, tmp_path: Path, scheduler: str) -> None:
    spec = people_spec(
        people,
        tmp_path / "artifacts",
        scheduler,
        data={"path": str(people), "target": "income", "id": "key"},
        tables=[],
        features=[{"op": "one_hot", "columns": ["city", "buys"]}, {"op": "date_parts", "columns": ["joined"]}],
        split={"kind": "random", "test_size": 0.3},
        models=["xgboost", "linear_regression", "ridge", "random_forest"],
        metric="rmse",
    )
    run = treadle.run(spec)
    board = run.leaderboard
    assert board["rmse"].is_monotonic_increasing
    assert set(board.columns) >= {"rmse", "mae", "r2"}
    assert list(run.table("predictions").to_pandas().columns) == ["id", "score", "margin"]


def test_results_do_not_depend_on_the_partitioning(people: Path, tmp_path: Path, scheduler: str) -> None:
    tables, boards = [], []
    for partitions in (1, 3, 16):
        data = {"path": str(people), "target": "buys", "id": "key", "partitions": partitions}
        aggregate = {
            "op": "aggregate",
            "by": ["city"],
            "broadcast": True,
            "aggregations": {
                "city_age": {"function": "mean", "column": "age"},
                "city_spread": {"function": "std", "column": "income"},
                "city_dates": {"function": "nunique", "column": "joined"},
            },
        }
        spec = people_spec(
            people,
            tmp_path / str(partitions),
            scheduler,
            data=data,
            tables=[aggregate],
            models=["xgboost", "logistic_regression"],
        )
        spec["features"][0]["columns"] = ["income"]
        run = treadle.run(spec)
        assert run.manifest["plan"]["partitions"] == partitions
        tables.append(run.table("features").to_pandas())
        boards.append(run.leaderboard.set_index("model").sort_index())
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, rtol=1e-6)
    for other in boards[1:]:
        for metric in ("auc", "accuracy", "log_loss", "brier", "f1"):
            np.testing.assert_allclose(boards[0][metric], other[metric], atol=2e-2 if metric != "auc" else 1e-2)


def test_a_finished_stage_is_not_done_twice(run_people: Callable[..., Run]) -> None:
    first = run_people()
    assert set(statuses(first).values()) == {"finished"}
    again = run_people(device="cpu")
    assert {s for name, s in statuses(again).items() if name != "publish"} == {"cached"}
    assert again.manifest["publication"] is None
    assert again.table("predictions").version == first.table("predictions").version == 0
    assert again.model.reference == first.model.reference
    fresh = run_people(fresh=True)
    assert set(statuses(fresh).values()) == {"finished"}


def test_a_job_of_which_nothing_has_changed_is_not_run_again(run_people: Callable[..., Run], tmp_path: Path) -> None:
    first = run_people()
    again = run_people()
    assert (again.id, again.reused, first.reused) == (first.id, True, False)
    assert again.manifest == json.loads(Path(first.path(f"runs/{first.id}/manifest.json")).read_text())
    assert len(list_runs(str(tmp_path / "artifacts"))) == 1
    # What readers see is not what it published any more: another run's, or damaged.
    other = run_people(seed=8)
    assert run_people().id not in (first.id, other.id)
    last = run_people()
    Path(last.table("features").files()[0]).unlink()
    assert not last.is_current
    mended = run_people(fresh=True)
    assert mended.id != last.id
    assert mended.is_current


def test_only_what_changed_is_done_again(run_people: Callable[..., Run]) -> None:
    run_people()
    explained = run_people(explain={"rows": "all"})
    done = {name for name, status in statuses(explained).items() if status == "finished"}
    assert done == {"explain", "publish"}
    assert explained.table("explanations").version == 1
    assert explained.table("predictions").version == 0
    more = run_people(models=["xgboost", "decision_tree"])
    assert statuses(more)["train:decision_tree"] == "finished"
    assert statuses(more)["features"] == "cached"


def test_older_versions_of_a_table_stay_readable(run_people: Callable[..., Run]) -> None:
    first = run_people(predict={"rows": "test"})
    second = run_people(predict={"rows": "all"})
    assert (first.table("predictions").version, second.table("predictions").version) == (0, 1)
    assert len(first.table("predictions").to_pandas()) == 150
    assert len(second.table("predictions").to_pandas()) == 600


def test_the_model_predicts_raw_rows_as_the_run_did(run_people: Callable[..., Run], people: Path) -> None:
    run = run_people(predict={"rows": "all"})
    expected = run.table("predictions").to_pandas().sort_values("id", ignore_index=True)
    raw = pd.read_parquet(people)
    found = (
        treadle.load_model("people", root=run._store.url)
        .predict(raw.drop(columns="buys"))
        .sort_values("id", ignore_index=True)
    )
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)
    assert (found["class"] == expected["class"]).all()
    explained = run.model.predict(raw.head(5), explain=True)
    names = list(run.model.document.features)
    np.testing.assert_allclose(explained[[*names, "bias"]].sum(axis=1), explained["margin"], atol=1e-4)


def test_a_failing_model_is_a_line_of_the_leaderboard(run_people: Callable[..., Run]) -> None:
    run = run_people(models=["xgboost", {"name": "random_forest", "params": {"min_samples_split": 0}}])
    board = run.leaderboard.set_index("model")
    assert "min_samples_split" in board.loc["random_forest", "error"]
    assert board.loc["xgboost", "auc"] > 0.7
    assert run.model.document.model == "xgboost"


def test_rates_by_protected_group_add_up(run_people: Callable[..., Run], people: Path) -> None:
    data = {
        "path": str(people),
        "target": "buys",
        "positive_class": "yes",
        "id": "key",
        "protected": ["city", "member"],
    }
    run = run_people(data=data)
    groups = run.manifest["results"]["evaluate"]["groups"]
    assert sum(rates["n"] for rates in groups["city"].values()) == 150
    assert set(groups["member"]) == {"False", "True"}
    rows = run.table("features").to_pandas()
    assert "protected.city" in rows.columns


def test_an_etl_job_publishes_the_table_etl(people: Path, tmp_path: Path, scheduler: str) -> None:
    spec = {
        "apiVersion": "treadle/v1",
        "name": "cities",
        "data": {"path": str(people), "partitions": 4},
        "tables": [
            {"op": "filter", "sql": "age >= 30"},
            {
                "op": "aggregate",
                "by": ["city"],
                "aggregations": {"n": {"function": "count"}, "age": {"function": "mean", "column": "age"}},
            },
        ],
        "artifacts": {"root": str(tmp_path / "artifacts")},
        "cluster": {"profile": "address", "address": scheduler},
    }
    found = treadle.run(spec).table("etl").to_pandas().set_index("city")
    raw = pd.read_parquet(people).query("age >= 30").groupby("city", dropna=False)
    pd.testing.assert_series_equal(found["n"], raw.size(), check_names=False, check_dtype=False, check_index_type=False)
    pd.testing.assert_series_equal(found["age"], raw["age"].mean(), check_names=False, check_index_type=False)


def test_events_tell_the_story_of_a_run(run_people: Callable[..., Run], tmp_path: Path) -> None:
    run = run_people()
    lines = [
        json.loads(line)
        for line in (tmp_path / "artifacts" / "runs" / run.id / "events.jsonl").read_text().splitlines()
    ]
    assert {"time", "stage", "event"} <= set(lines[0])
    assert {line["event"] for line in lines} <= {"started", "finished", "cached", "failed", "progress"}
    rows = [line["rows"] for line in lines if line["stage"] == "features" and line["event"] == "progress"]
    assert max(r for r in rows if r is not None) == 600


def test_runs_are_listed_and_found_by_a_prefix(run_people: Callable[..., Run], tmp_path: Path) -> None:
    run = run_people()
    root = str(tmp_path / "artifacts")
    (row,) = list_runs(root)
    assert (row["run"], row["status"], row["model"]) == (run.id, "succeeded", "people:1")
    assert treadle.load_run(root, "people").id == run.id
    with pytest.raises(RequestError, match="There is no run 'peple'"):
        treadle.load_run(root, "peple")
    with pytest.raises(RequestError, match="has no table 'prediction'.*Did you mean 'predictions'"):
        run.table("prediction")


def test_splits_by_time_group_and_path(people: Path, tmp_path: Path, scheduler: str) -> None:
    raw = pd.read_parquet(people).set_index("key")

    def sides(split: dict, **changes: object) -> tuple[pd.DataFrame, pd.DataFrame]:
        run = treadle.run(people_spec(people, tmp_path / "artifacts", scheduler, split=split, **changes))
        table = run.table("features").to_pandas().set_index("id")
        return raw.loc[table.index[table["split"] == "train"]], raw.loc[table.index[table["split"] == "test"]]

    train, test = sides({"kind": "time", "column": "joined", "test_size": 0.2})
    assert train["joined"].max() < test["joined"].min()
    assert 115 <= len(test) <= 125
    train, test = sides({"kind": "group", "column": "age", "test_size": 0.3})
    assert not set(train["age"]) & set(test["age"])
    assert 0.15 < len(test) / 600 < 0.35
    train, test = sides({"kind": "random", "test_size": 0.4})
    assert len(test) == 240
    train, test = sides({"kind": "stratified", "test_size": 0.25})
    assert abs((train["buys"] == "yes").mean() - (test["buys"] == "yes").mean()) < 0.005
    other = write_people(tmp_path / "other.parquet", rows=50, seed=8)
    run = treadle.run(
        people_spec(people, tmp_path / "artifacts", scheduler, split={"kind": "path", "path": str(other)})
    )
    assert run.manifest["results"]["split"]["test_rows"] == 50
    assert run.manifest["results"]["split"]["train_rows"] == 600


def test_stages_are_shown_with_the_memory_of_gpus_where_it_is_known() -> None:
    cost = {"status": "finished", "wall_seconds": 1.0, "cpu_seconds": 1.0, "peak_bytes": 2**30}
    on_cpu = {**cost, "stage": "etl", "device_peak_bytes": None, "device_used_bytes": None}
    on_gpus = {**cost, "stage": "train:x", "device_peak_bytes": 0, "device_used_bytes": 3 * 2**30}
    with console.out.capture() as printed:
        console._stages({"stages": [on_cpu]})
        console._stages({"stages": [{**on_cpu, "device_peak_bytes": 0}, on_gpus]})
        # Of a run before there was such a thing.
        console._stages({"stages": [{**cost, "stage": "old"}]})
    text = printed.get()
    assert text.count("GPU peak") == text.count("GPU in use") == 1
    (line,) = [line for line in text.splitlines() if "train:x" in line]
    assert "0 MiB" in line
    assert "3.00 GiB" in line
