"""Relational operations that touch the target, or take names away, are replayed at prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import treadle
from tests.conftest import people_spec


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
