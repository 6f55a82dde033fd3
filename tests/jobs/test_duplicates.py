"""Whole jobs with `data.duplicates`: without repeated rows they are as if these had never been there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import treadle
from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Attached
from treadle.engine import exchange
from treadle.jobs.cli import app
from treadle.jobs.predict import predict_files
from treadle.jobs.run import Run


def test_a_job_on_repeated_rows_is_one_on_each_of_them_once(
    run_people: Callable[..., Run], people: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is called by an id, and two of the four partitions are left without a row."""
    frame = pd.read_parquet(people)
    pd.concat([frame, frame], ignore_index=True).to_parquet(tmp_path / "twice.parquet", row_group_size=100)
    data = {"target": "buys", "positive_class": "yes", "partitions": 4}
    changes: dict[str, Any] = {
        "models": ["decision_tree"],
        "tables": [{"op": "drop", "columns": ["key", "income"]}],
        "features": [{"op": "one_hot", "columns": ["city"]}, {"op": "date_parts", "columns": ["joined"]}],
        "contract": [{"expect": "range", "column": "age", "max": 75, "otherwise": "quarantine"}],
    }
    once = run_people(**changes, data={"path": str(people), **data})
    twice = run_people(**changes, data={"path": str(tmp_path / "twice.parquet"), **data, "duplicates": "drop"})
    for name in ("features", "predictions", "explanations"):
        pd.testing.assert_frame_equal(twice.table(name).to_pandas(), once.table(name).to_pandas())
    aside, expected = (run.table("quarantine").to_pandas() for run in (twice, once))
    pd.testing.assert_frame_equal(aside.drop(columns="file"), expected.drop(columns="file"))
    assert twice.manifest["results"]["duplicates"] == {"rows": 1200, "repeated": 600, "dropped": 600, "in_both": None}
    said = "600 of 1200 rows equal an earlier one in every column and are left out"
    assert said in twice.manifest["warnings"]
    shown = CliRunner().invoke(app, ["show", twice.id, "--root", str(tmp_path / "artifacts")]).output
    assert f"warning: {said}" in shown

    # Every row of an input to predict gets its prediction, those that are repeated too.
    here = Attached(profile="address", address=scheduler)
    monkeypatch.setattr("treadle.jobs.predict.open_cluster", lambda _: open_cluster(here))
    root = str(tmp_path / "artifacts")
    done = predict_files("people", [str(tmp_path / "twice.parquet")], str(tmp_path / "out"), root=root)
    assert (done["rows_read"], done["rows_predicted"]) == (1200, 1200)
    assert len(treadle.load_model("people", root=root).predict(pd.concat([frame, frame]))) == 1200


def test_adult_has_rows_twice_in_both_files_and_some_in_both(
    run_people: Callable[..., Run], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 2**18)
    train, test = (pd.read_parquet(shared_data / "adult" / f"adult_{name}.parquet") for name in ("train", "test"))
    run = run_people(
        data={
            "path": str(shared_data / "adult" / "adult_train.parquet"),
            "duplicates": "count",
            "partitions": 3,
        },
        split={"kind": "path", "path": str(shared_data / "adult" / "adult_test.parquet")},
        tables=[{"op": "select", "columns": ["age"]}],
        features=[{"op": "scale", "columns": "numeric"}],
        models=[],
        metric=None,
    )
    repeated = int(train.duplicated().sum() + test.duplicated().sum())
    both = len(train.drop_duplicates().merge(test.drop_duplicates(), how="inner"))
    assert repeated > 0 < both
    assert run.manifest["results"]["duplicates"] == {
        "rows": len(train) + len(test), "repeated": repeated, "dropped": 0, "in_both": both,
    }  # fmt: skip
    assert run.tables["features"].rows == len(train) + len(test)


def test_retail_without_lines_that_were_entered_twice(run_people: Callable[..., Run], shared_data: Path) -> None:
    path = shared_data / "retail" / "transactions"
    frame = pd.read_parquet(path)
    run = run_people(
        data={"path": str(path), "duplicates": "drop", "partitions": 5},
        tables=[{"op": "aggregate", "by": ["month"], "aggregations": {"n": {"function": "count"}}}],
        features=[], models=[], split=None, metric=None,
    )  # fmt: skip
    repeated = frame.duplicated()
    assert run.manifest["results"]["duplicates"]["dropped"] == repeated.sum() > 5000
    counted = run.table("etl").to_pandas()["n"].tolist()
    assert counted == frame[~repeated].groupby("month", observed=True).size().sort_index().tolist()
