"""Jobs whose tables are partitioned, or whose columns are not to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import treadle
from tests.jobs.published import Published
from treadle.engine import delta
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError
from treadle.jobs.rollback import rollback
from treadle.jobs.run import Run


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Published:
    return Published(tmp_path_factory.mktemp("layout"), scheduler)


def run(people: Published, layout: dict[str, Any], **changes: Any) -> Run:
    spec = people.spec(explain={"rows": "all"}, **changes)
    return treadle.run({**spec, "artifacts": {**spec["artifacts"], "tables": layout}})


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def test_tables_are_partitioned_and_hold_the_same(people: Published) -> None:
    laid_out = run(
        people, {"predictions": {"partition_by": ["class"]}, "features": {"partition_by": ["split", "buys"]}}
    )
    store = Store(people.root)
    for name, before in people.before.items():
        if name != "leaderboard":
            assert rows(laid_out.table(name).to_arrow().select(before.column_names)) == rows(before)
    opened = delta.open_table(store.fs, laid_out.table("features").path)
    assert opened.metadata().partition_columns == ["split", "buys"]
    folders = {str(Path(file).parent.relative_to(laid_out.table("features").path)) for file in delta.data_files(opened)}
    assert folders == {f"split={side}/buys={answer}" for side in ("train", "test") for answer in ("yes", "no")}
    assert laid_out.table("explanations").version == people.run.table("explanations").version, "it is as it was"
    # Nothing is split again where nothing changed, and what was split is kept in one place only.
    assert not [path for path in store.fs.find(store.path("stages")) if "publish-" in path and "features-" in path]
    again = run(people, {"predictions": {"partition_by": ["class"]}, "features": {"partition_by": ["split", "buys"]}})
    assert again.id == laid_out.id
    rolled = rollback(people.run.id, people.root)
    assert rolled.run is not None
    restored = delta.open_table(store.fs, laid_out.table("features").path)
    assert restored.metadata().partition_columns == []
    back = rollback(laid_out.id, people.root)
    assert back.run is not None
    restored = delta.open_table(store.fs, laid_out.table("features").path)
    assert restored.metadata().partition_columns == ["split", "buys"]
    assert rows(delta.read_arrow(restored).select(people.before["features"].column_names)) == rows(
        people.before["features"]
    )


def test_columns_change_by_the_rule_of_the_spec(people: Published) -> None:
    more = {"tables": [*people.spec()["tables"], {"op": "derive", "name": "older", "sql": "age + 1"}]}
    before = delta.open_table(Store(people.root).fs, people.run.table("features").path).version()
    with pytest.raises(DataError, match=r"features\.schema: fixed does not allow: columns are new: \[older\]"):
        run(people, {"features": {"schema": "fixed"}}, **more)
    assert delta.open_table(Store(people.root).fs, people.run.table("features").path).version() == before
    added = run(people, {"features": {"schema": "add"}}, **more)
    assert "older" in added.table("features").to_arrow().column_names
    with pytest.raises(DataError, match=r"schema: add does not allow: columns are gone: \[older\]"):
        run(people, {"features": {"schema": "add"}})
    assert "older" not in run(people, {}).table("features").to_arrow().column_names


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (
            {"prediction": {"partition_by": ["class"]}},
            r"'prediction' is no table that can be.*Did you mean 'predictions'",
        ),
        ({"leaderboard": {"partition_by": ["model"]}}, r"'leaderboard' is no table that can be partitioned"),
        ({"feature": {"schema": "fixed"}}, r"'feature' is no table\. Allowed.*Did you mean 'features'"),
        ({"features": {"schema": "strict"}}, r"any.*add.*fixed"),
        (
            {"predictions": {"partition_by": ["klass"]}},
            r"'klass' was not found in what is known of .*predictions.*'class'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_runs(people: Published, tables: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        run(people, tables)


def test_a_partition_column_has_names_for_folders(people: Published) -> None:
    etl = {"models": [], "features": [], "split": None, "metric": None, "name": "etl"}
    spec = {key: value for key, value in people.spec(**etl).items() if value is not None}
    spec["artifacts"] = {**spec["artifacts"], "tables": {"etl": {"partition_by": ["joined"]}}}
    with pytest.raises(RequestError, match=r"'joined' is timestamp; folders are named by text, int or bool\. Derive"):
        treadle.run(spec)
    spec["artifacts"]["tables"] = {"etl": {"partition_by": ["city", "member"]}}
    made = treadle.run(spec)
    assert made.table("etl").rows == len(people.raw)
    found = made.table("etl").to_pandas().set_index("key")["city"]
    expected = people.raw.set_index("key")["city"]
    assert found.sort_index().fillna("?").tolist() == expected.sort_index().fillna("?").tolist()
