"""Relational operations that touch the target, or take names away, are replayed at prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine import exchange
from treadle.errors import RequestError
from treadle.jobs.predict import _partitions, predict_files


def test_raw_rows_without_the_target_go_through_all_tables_operations(
    people: Path, tmp_path: Path, scheduler: str
) -> None:
    raw = pd.read_parquet(people)
    cities = pd.DataFrame({"city": ["Ulm", "Bonn", "Ulm", None, None], "inhabitants": [127.0, 337.0, 128.0, 1.0, 2.0]})
    cities.to_parquet(tmp_path / "cities.parquet")
    by_city = {
        "rows": {"function": "count"},
        "pay": {"function": "mean", "column": "income"},
        "first": {"function": "min", "column": "buys"},
    }
    tables = [
        {"op": "cast", "columns": {"buys": "text", "age": "float", "income": "float"}},
        {"op": "filter", "sql": "age > 20"},
        {"op": "filter", "sql": "buys is not null"},
        {"op": "join", "with": {"path": str(tmp_path / "cities.parquet")}, "on": ["city"]},
        {"op": "aggregate", "by": ["city"], "broadcast": True, "aggregations": by_city},
        {"op": "drop", "columns": ["income", "first"]},
        {"op": "rename", "columns": {"age": "income", "pay": "age"}},
        {"op": "filter", "sql": "rows > 40"},
    ]
    features = [
        {"op": "impute", "columns": ["age", "inhabitants"]},
        {"op": "date_parts", "columns": ["joined"]},
        {"op": "one_hot", "columns": ["city"], "missing": "?"},
    ]
    run = treadle.run(
        people_spec(people, tmp_path / "a", scheduler, tables=tables, features=features, predict={"rows": "all"})
    )
    expected = raw[raw["age"] > 20].merge(cities.dropna(), on="city", how="left")
    expected = expected[expected.groupby("city", dropna=False)["key"].transform("size") > 40]
    predictions = run.table("predictions").to_pandas().sort_values(["id", "score"], ignore_index=True)
    assert len(raw) < len(expected) < 1.4 * len(raw)
    assert sorted(predictions["id"]) == sorted(expected["key"])
    assert run.manifest["warnings"] == [
        f"tables.3 (join): 1 keys occur more than once in {tmp_path}/cities.parquet; rows multiply"
    ]
    assert set(run.model.document.inputs) == {"key", "age", "city", "member", "joined"}
    assert run.model.document.left_out == ("tables.2 (filter)",)
    found = run.model.predict(raw[["key", "age", "city", "member", "joined"]]).sort_values(["id", "score"])
    assert found["id"].tolist() == predictions["id"].tolist()
    np.testing.assert_allclose(found["score"], predictions["score"], atol=1e-6)


BY_CITY = {
    "op": "window",
    "by": ["city"],
    "order": "joined",
    "outputs": {
        "before": {"function": "lag", "column": "age"},
        "pay_30d": {"function": "rolling_mean", "column": "income", "span": "30d"},
        "n": {"function": "cum_count", "current": False},
        "since": {"function": "time_since_last"},
    },
}
FILLED = [
    {"op": "impute", "columns": ["income", "before", "pay_30d", "since"]},
    {"op": "one_hot", "columns": ["city"], "missing": "?"},
]


def scores(table: pd.DataFrame) -> pd.Series:
    return table.sort_values(["id", "score"]).set_index("id")["score"]


@pytest.mark.parametrize("bucket", [pytest.param(2**25, marks=pytest.mark.slow), 5000])
def test_the_whole_input_predicted_gives_the_scores_of_the_run(
    people: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    """Windows see the rows of the input, dedupe leaves the same out, the side of a union is rows to predict, too."""
    monkeypatch.setattr(exchange, "BUCKET_BYTES", bucket)
    rows = pd.read_parquet(people)
    more = write_people(tmp_path / "more.parquet", rows=90, seed=8)
    pd.read_parquet(more).assign(key=lambda f: f["key"] + 5000).to_parquet(more)
    # The same people again under other keys.
    pd.concat([rows, rows[::7].assign(key=lambda f: f["key"] + 9000)], ignore_index=True).to_parquet(
        people, row_group_size=150
    )
    rates = pd.DataFrame({"city": ["Ulm", "Bonn", "Ulm"], "rate": [1.0, 2.0, 3.0]})
    rates["since_rate"] = pd.to_datetime(["2024-03-01", "2024-02-01", "2024-09-01"]).astype("datetime64[us]")
    rates.to_parquet(tmp_path / "rates.parquet")
    tables = [
        {"op": "union", "with": {"path": str(more)}},
        {"op": "dedupe", "columns": ["age", "income", "city", "joined"]},
        BY_CITY,
        {
            "op": "join", "how": "asof", "on": ["city"], "time": {"here": "joined", "there": "since_rate"},
            "with": {"path": str(tmp_path / "rates.parquet")},
        },
        {"op": "derive", "name": "rate", "sql": "coalesce(rate, 0)"},
        {"op": "join", "how": "anti", "on": ["age"], "with": {"path": str(ages(tmp_path, [33, 44]))}},
        {"op": "drop", "columns": ["joined", "since_rate"]},
        {"op": "sample", "fraction": 0.8},
    ]  # fmt: skip
    root = str(tmp_path / "a")
    run = treadle.run(people_spec(people, root, scheduler, tables=tables, features=FILLED, predict={"rows": "all"}))
    done = predict_files("people", [str(people), str(more)], str(tmp_path / "out"), root=root, workers=1)
    assert (done["rows_read"], done["left_out"]) == (600 + 86 + 90, [])
    of_run = scores(run.table("predictions").to_pandas())
    found = scores(pd.read_parquet(tmp_path / "out"))
    assert 650 < len(found) < 690
    assert 0.7 * len(found) < len(of_run) < 0.9 * len(found)
    np.testing.assert_allclose(found[of_run.index], of_run, atol=1e-6)
    assert not set(found.index) & set(range(9000, 9600))
    frame = pd.concat([pd.read_parquet(people), pd.read_parquet(more)], ignore_index=True)
    np.testing.assert_allclose(scores(run.model.predict(frame.drop(columns="buys"))), found, atol=1e-6)
    assert _partitions(run.model, 10**6, 100, 4) == 1
    too_many = "tables.1 .dedupe. looks at several rows of a key, so all rows to predict are taken at once, and .* rows"
    with pytest.raises(RequestError, match=f"{too_many} are 9.3 GiB, more than 2 GiB; predict fewer keys at a time"):
        _partitions(run.model, 10**8, 100, 4)


def ages(folder: Path, values: list[int]) -> Path:
    pd.DataFrame({"age": values}).to_parquet(folder / "ages.parquet")
    return folder / "ages.parquet"
