"""Specs whose operations get in each other's way, odd names and odd values: each works, or is refused in words."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import treadle
from tests.conftest import people_spec, write_people
from treadle.errors import RequestError
from treadle.jobs import runner
from treadle.jobs.run import Run

Runs = Callable[..., Run]
NO_TIMES = {"op": "drop", "columns": ["joined", "member"]}
CITY = {"op": "one_hot", "columns": ["city"]}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(write_people(tmp_path_factory.mktemp("raw") / "people.parquet", rows=200))


@pytest.fixture
def run(tmp_path: Path, scheduler: str, raw: pd.DataFrame) -> Runs:
    """Runs the quick spec with a tree, on a frame, with some sections changed; data are those keys of the section."""

    def run(frame: pd.DataFrame = raw, **changes: Any) -> Run:
        frame.to_parquet(tmp_path / "input.parquet")
        spec = people_spec(tmp_path / "input.parquet", tmp_path / "root", scheduler, models=["decision_tree"])
        data = {**spec["data"], **changes.pop("data", {})}
        return treadle.run({**spec, "predict": {"rows": "all"}, "explain": {"rows": "all"}, **changes, "data": data})

    return run


def featured(run: Run) -> pd.DataFrame:
    """The table `features`, by id."""
    return run.table("features").to_pandas().set_index("id").sort_index()


def replays(run: Run, frame: pd.DataFrame) -> None:
    """The published model predicts the rows of the run, without their target, as the run did."""
    found = run.model.predict(frame.drop(columns="buys")).set_index("id").sort_index()
    expected = run.table("predictions").to_pandas().set_index("id").sort_index()
    pd.testing.assert_frame_equal(found.loc[expected.index], expected, rtol=1e-6)


# Rows and columns that operations take away, or change under others.


def test_a_filter_on_the_target_is_left_out_at_prediction(run: Runs, raw: pd.DataFrame) -> None:
    filters = [{"op": "filter", "sql": "buys = 'yes' OR age > 30"}, {"op": "filter", "sql": "age < 70"}]
    made = run(tables=[*filters, {"op": "select", "columns": ["key", "age", "buys"]}], features=[])
    assert made.table("features").rows == int(((raw["buys"].eq("yes") | raw["age"].gt(30)) & raw["age"].lt(70)).sum())
    assert made.model.document.left_out == ("tables.0 (filter)",)
    assert len(made.model.predict(raw.drop(columns="buys"))) == int(raw["age"].lt(70).sum())
    replays(made, raw)


def test_the_id_survives_operations_on_its_column(run: Runs, raw: pd.DataFrame) -> None:
    for operation in (
        {"op": "select", "columns": ["age", "buys"]},
        {"op": "derive", "name": "key", "sql": "key % 7"},
        {"op": "rename", "columns": {"key": "number"}},
    ):
        made = run(tables=[operation, {"op": "cast", "columns": {"age": "float"}}],
                   features=[] if operation["op"] == "select" else
                   [CITY, {"op": "date_parts", "columns": ["joined"]}])  # fmt: skip
        assert sorted(featured(made).index) == list(raw["key"])
        replays(made, raw)
    assert "number" in made.model.document.features, "under another name it is a column like any other"


def test_a_derived_column_may_take_the_place_of_another(run: Runs, raw: pd.DataFrame) -> None:
    twice = [{"op": "derive", "name": "age", "sql": "age + 1"}, {"op": "derive", "name": "age", "sql": "age * 2"}]
    made = run(tables=[*twice, {"op": "select", "columns": ["key", "age", "buys", "age"]}], features=[])
    assert made.model.document.features == ("age",)
    np.testing.assert_array_equal(featured(made)["age"], (raw["age"] + 1) * 2)
    replays(made, raw)


def test_a_derived_or_renamed_target(run: Runs, raw: pd.DataFrame) -> None:
    columns = {"op": "select", "columns": ["key", "age", "old"]}
    made = run(data={"target": "old", "positive_class": True},
               tables=[{"op": "derive", "name": "old", "sql": "age > 50"}, columns], features=[])  # fmt: skip
    assert made.leaderboard["auc"].item() == 1.0
    assert made.model.predict(raw)["class"].equals(raw["age"].gt(50).rename("class"))
    made = run(data={"target": "old"}, tables=[{"op": "rename", "columns": {"buys": "old"}}, columns], features=[])
    assert featured(made)["old"].tolist() == raw["buys"].tolist()
    replays(made, raw)


def test_one_row_a_group_can_be_learnt_from(run: Runs, raw: pd.DataFrame) -> None:
    groups = {"n": {"function": "count"}, "income": {"function": "mean", "column": "income"}}
    made = run(
        data={"target": "rich", "positive_class": None, "id": None},
        tables=[
            {"op": "aggregate", "by": ["age", "member"], "aggregations": groups},
            {"op": "filter", "sql": "n > 1"},
            {"op": "derive", "name": "rich", "sql": "income > 22000"},
            {"op": "drop", "columns": ["income"]},
        ],
        features=[],
    )
    expected = raw.groupby(["age", "member"])["income"].agg(["size", "mean"]).query("size > 1").reset_index()
    found = made.table("features").to_pandas()
    assert sorted(found["age"]) == sorted(expected["age"])
    assert made.model.document.inputs.keys() == {"age", "member", "n"}
    assert len(made.model.predict(pd.DataFrame({"age": [20, 30], "member": [True, False], "n": [1, 2]}))) == 1


def test_a_filter_that_leaves_nothing_is_an_empty_etl_table(run: Runs) -> None:
    made = run(tables=[{"op": "filter", "sql": "age > 1000"}], features=[], models=[], metric=None, split=None)
    assert (made.table("etl").rows, len(made.table("etl").to_pandas().columns)) == (0, 7)


# Levels.


def test_null_takes_the_level_that_missing_names(run: Runs, raw: pd.DataFrame) -> None:
    made = run(tables=[NO_TIMES], features=[{**CITY, "missing": "Ulm"}])
    found = featured(made)
    assert [name for name in found if name.startswith("city=")] == ["city=Bonn", "city=Köln", "city=Trier", "city=Ulm"]
    np.testing.assert_array_equal(found["city=Ulm"], raw["city"].fillna("Ulm").eq("Ulm"))
    replays(made, raw)


def test_missing_may_name_a_level_of_numbers(run: Runs, raw: pd.DataFrame) -> None:
    ten = {"op": "derive", "name": "ten", "sql": "CASE WHEN age < 70 THEN CAST(floor(age / 10) AS INTEGER) END"}
    made = run(tables=[ten, {"op": "select", "columns": ["key", "ten", "buys"]}],
               features=[{"op": "one_hot", "columns": ["ten"], "missing": "3"}])  # fmt: skip
    found = featured(made)
    assert [name for name in found if name.startswith("ten=")] == [f"ten={i}" for i in range(1, 7)]
    np.testing.assert_array_equal(found["ten=3"], raw["age"].between(30, 39) | raw["age"].ge(70))
    np.testing.assert_array_equal(found["ten=5"], raw["age"].between(50, 59))


def test_unseen_values_take_the_level_other_that_is_there(run: Runs, raw: pd.DataFrame) -> None:
    frame = raw.assign(city=raw["city"].fillna("other"))
    made = run(frame, tables=[NO_TIMES], features=[{**CITY, "missing": "?", "unseen": "other"}])
    np.testing.assert_array_equal(featured(made)["city=other"], frame["city"].eq("other"))
    known = made.model.predict(frame.assign(city="other"))
    pd.testing.assert_frame_equal(made.model.predict(frame.assign(city="Paris")), known)
    made = run(tables=[NO_TIMES], features=[{**CITY, "missing": "other", "unseen": "other"}])
    np.testing.assert_array_equal(featured(made)["city=other"], raw["city"].isna())
    known = made.model.predict(raw.assign(city=None))
    pd.testing.assert_frame_equal(made.model.predict(raw.assign(city="Paris")), known)


def test_empty_text_is_a_level_and_null_is_none(run: Runs, raw: pd.DataFrame) -> None:
    frame = raw.assign(city=raw["city"].where(raw["age"] > 30, ""))
    found = featured(run(frame, tables=[NO_TIMES], features=[CITY]))
    np.testing.assert_array_equal(found["city="], frame["city"].eq(""))
    levels = found[[name for name in found if name.startswith("city=")]]
    np.testing.assert_array_equal(levels.sum(axis=1).eq(0), frame["city"].isna())


def test_booleans_as_features(run: Runs, raw: pd.DataFrame) -> None:
    young = {"op": "derive", "name": "young", "sql": "CASE WHEN age < 70 THEN age < 40 END"}
    tables = [young, {"op": "select", "columns": ["key", "member", "young", "buys"]}]
    found = featured(run(tables=tables, features=[]))
    np.testing.assert_array_equal(found["member"], raw["member"].astype(float))
    np.testing.assert_array_equal(found["young"], np.where(raw["age"] < 70, raw["age"] < 40, np.nan).astype(np.float32))
    made = run(tables=tables, features=[{"op": "one_hot", "columns": ["young"], "missing": "?"},
                                        {"op": "impute", "columns": ["member"], "method": "mode"}])  # fmt: skip
    found = featured(made)
    np.testing.assert_array_equal(found["young=?"], raw["age"] >= 70)
    np.testing.assert_array_equal(found["young=True"], raw["age"] < 40)
    replays(made, raw)


# Targets.


def test_whole_numbers_of_many_values_are_a_regression(run: Runs, raw: pd.DataFrame) -> None:
    columns = {"op": "select", "columns": ["key", "income", "age"]}
    target = {"target": "age", "positive_class": None}
    made = run(data=target, tables=[columns], features=[], metric=None, split=None)
    assert made.manifest["results"]["split"]["task"] == "regression"
    assert "rmse" in made.leaderboard
    made = run(data={**target, "task": "classification"}, tables=[columns], features=[], metric=None, split=None)
    assert made.manifest["results"]["split"]["task"] == "multiclass"
    assert len(made.manifest["results"]["split"]["classes"]) == raw["age"].nunique()
    assert set(made.model.predict(raw)["class"]) <= set(raw["age"])


def test_explanations_of_several_classes_with_repeated_ids(run: Runs, raw: pd.DataFrame) -> None:
    made = run(data={"target": "city", "positive_class": None, "id": "age"}, metric=None, split=None,
               tables=[{"op": "select", "columns": ["age", "city", "income", "key"]}], features=[])  # fmt: skip
    explained = made.model.predict(raw, explain=True)
    assert len(explained) == 4 * len(raw)
    assert explained["id"].tolist() == np.repeat(raw["age"], 4).tolist()
    margins = [row[f"margin_{row['class_explained']}"] for _, row in explained.iterrows()]
    np.testing.assert_allclose(explained[["income", "key", "bias"]].sum(axis=1), margins, atol=1e-4)


# Names.

NAMES = [
    "[a]",
    "x<1>",
    'städt, "q"',
    "a.b",
    "a=b",
    "score",
    "margin",
    " ",
    "%41",
    "it's",
    "a" * 2000,
    "日本",
    "protected.x",
]


@pytest.mark.parametrize("model", ["xgboost", "decision_tree", "logistic_regression"])
def test_any_name_will_do(run: Runs, raw: pd.DataFrame, model: str) -> None:
    columns = {name: raw["age"] * (i + 1) % 17 for i, name in enumerate(NAMES)}
    frame = pd.DataFrame({"the id!": raw["key"], **columns, "[city]": raw["city"], "buys?": raw["buys"]})
    made = run(
        frame,
        data={"target": "buys?", "id": "the id!", "protected": ["[city]"]},
        tables=[{"op": "derive", "name": "sum [1]", "sql": '"[a]" + "x<1>" + "städt, ""q"""'}],
        features=[{"op": "one_hot", "columns": ["[city]"]}],
        models=[model],
    )
    assert set(made.model.document.features) > {*NAMES, "sum [1]", "[city]=Köln"}
    explained = made.model.predict(frame.drop(columns="buys?"), explain=True)
    assert {"[a]", "score_contribution", "margin_contribution", "bias"} <= set(explained.columns)
    contributions = explained.columns[4:]
    np.testing.assert_allclose(explained[contributions].sum(axis=1), explained["margin"], atol=1e-4)
    stored = made.table("explanations").to_pandas()
    assert stored.columns.tolist() == ["id", *made.model.document.features, "bias"]
    assert set(made.manifest["results"]["evaluate"]["groups"]) == {"[city]"}


# Anything at all in a spec.


def spec_of(path: Path) -> dict[str, Any]:
    """A spec that uses every section and every operation."""
    side = {"path": str(path.with_name("side.parquet")), "format": "parquet"}
    return {
        "apiVersion": "treadle/v1", "name": "people", "seed": 7, "device": "auto",
        "data": {"path": str(path), "format": "parquet", "target": "buys", "positive_class": "yes", "id": "key",
                 "task": "classification", "protected": ["city"], "partitions": 2, "bad_rows": {"limit": 0}},
        "tables": [
            {"op": "filter", "sql": "age > 20"},
            {"op": "derive", "name": "log_income", "sql": "ln(income)"},
            {"op": "cast", "columns": {"age": "int"}, "formats": ["%Y"]},
            {"op": "rename", "columns": {"income": "money"}},
            {"op": "aggregate", "by": ["city"], "aggregations": {"m": {"function": "mean", "column": "age"}},
             "broadcast": True},
            {"op": "select", "columns": ["key", "age", "city", "log_income", "m", "buys", "joined", "member"]},
            {"op": "drop", "columns": ["m"]},
            {"op": "join", "with": side, "on": ["city"], "how": "left"},
        ],
        "features": [
            {"op": "impute", "columns": ["log_income"], "method": "constant", "value": 3, "indicator": True},
            {"op": "one_hot", "columns": ["city"], "missing": "?", "unseen": "other"},
            {"op": "ordinal", "columns": ["member"]},
            {"op": "scale", "columns": "numeric", "method": "minmax"},
            {"op": "date_parts", "columns": ["joined"], "parts": ["month"]},
        ],
        "split": {"kind": "stratified", "test_size": 0.25},
        "models": ["decision_tree", {"name": "xgboost", "label": "x", "params": {"max_depth": 3}}],
        "metric": "auc", "explain": {"rows": "test"}, "predict": {"rows": "all"},
        "artifacts": {"root": str(path.parent / "root")},
        "cluster": {"profile": "local", "workers": 1, "threads": 1, "memory": "2GB"},
    }  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMED = st.sampled_from(
    ["age", "buys", "city", "key", "joined", "__id__", "id", "numeric", "all", "path", "time", "float", "text", "%Q",
     "age = 1", "NULL", "0B", "9" * 400 + "TB", "a" * 300, "sum", "utf-16", "tcp://x:1", "nope://x", "[", "none-*"]
)  # fmt: skip
STRANGE = st.sampled_from([b"x", object(), lambda: 1, {1, 2}, range(3), datetime.date(2020, 1, 1), np.float32(1), ...])
JUNK = st.recursive(
    PLAIN | NAMED | STRANGE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | PLAIN, inner, max_size=3),
    max_leaves=4,
)
CHANGE = st.tuples(
    st.sampled_from(list(places(spec_of(Path("x"))))), st.sampled_from(["set", "set", "add", "drop"]), JUNK
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    pd.DataFrame({"city": ["Ulm", "Bonn"], "size": [1.5, 2.5]}).to_parquet(folder / "side.parquet")
    return write_people(folder / "people.parquet", rows=40)


def change(spec: dict[str, Any], path: tuple[Any, ...], how: str, junk: Any) -> None:
    inside: Any = spec
    for key in path[:-1]:
        inside = inside[key]
    if how == "drop":
        del inside[path[-1]]
    elif how == "set":
        inside[path[-1]] = junk
    elif isinstance(inside, list):
        inside.append(junk)
    else:
        inside["zz"] = junk


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGE, min_size=1, max_size=3))
def test_whatever_a_spec_holds_it_is_planned_or_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, changes: list[tuple[tuple[Any, ...], str, Any]]
) -> None:
    planned = object()
    monkeypatch.setattr(runner, "execute", lambda *_, **__: planned)
    spec = spec_of(small)
    for path, how, junk in changes:
        # An earlier change may have taken the place away.
        with contextlib.suppress(KeyError, IndexError, TypeError):
            change(spec, path, how, junk)
    said = ""
    try:
        assert treadle.run(spec) is planned
    except RequestError as error:
        said = str(error)
    assert len(said) < 20_000
    assert "object at 0x" not in said


def test_the_spec_that_is_changed_above_is_good(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "execute", lambda plan, **_: json.dumps(plan.describe()))
    assert '"train:x"' in str(treadle.run(spec_of(small)))
