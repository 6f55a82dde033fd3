"""A spec with features and without models publishes the table `features`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine.bundle import load_bundle
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError
from treadle.jobs.run import Run

Runs = Callable[..., Run]
FEATURES = [
    {"op": "impute", "columns": ["income"]},
    {"op": "scale", "columns": ["age", "income"], "method": "robust"},
    {"op": "one_hot", "columns": ["city"], "missing": "?"},
    {"op": "date_parts", "columns": ["joined"], "parts": ["hour"], "cyclic": True},
]
NAMES = [
    *("age", "income", "city=Bonn", "city=Köln", "city=Trier", "city=Ulm", "city=?"),
    *("member", "joined_hour", "joined_hour_sin", "joined_hour_cos"),
]
TARGET = {"op": "target_encode", "columns": ["city"]}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return pd.read_parquet(write_people(tmp_path_factory.mktemp("raw") / "people.parquet", rows=300))


@pytest.fixture
def run(tmp_path: Path, scheduler: str, raw: pd.DataFrame) -> Runs:
    """Runs features on a frame, without models; `data` replaces that section but for the path."""

    def run(frame: pd.DataFrame = raw, data: dict[str, Any] | None = None, **changes: Any) -> Run:
        frame.to_parquet(tmp_path / "input.parquet", row_group_size=100)
        spec = people_spec(tmp_path / "input.parquet", tmp_path / "root", scheduler, features=FEATURES)
        for section in ("models", "metric", "tables", "split"):
            del spec[section]
        path = spec["data"]["path"]
        return treadle.run({**spec, **changes, "data": {"path": path, "id": "key", **(data or {})}})

    return run


def featured(run: Run) -> pd.DataFrame:
    """The table `features`, by id."""
    return run.table("features").to_pandas().set_index("id").sort_index()


def robust(values: pd.Series, train: pd.Series) -> pd.Series:
    low, middle, high = train.quantile([0.25, 0.5, 0.75])
    return (values - middle) / (high - low)


def test_without_a_target_and_a_split_all_rows_teach(run: Runs, raw: pd.DataFrame) -> None:
    made = run(raw.drop(columns="buys"))
    assert list(made.tables) == ["features"]
    assert made.manifest["model"] is None
    assert [stage["stage"] for stage in made.manifest["stages"]] == ["read", "etl", "features", "publish"]
    found = featured(made)
    assert list(found) == NAMES
    assert set(found.dtypes) == {np.dtype("float32")}
    rows = raw.set_index("key")
    assert list(found.index) == list(rows.index)
    np.testing.assert_allclose(found["age"], robust(rows["age"], rows["age"]), rtol=1e-5)
    filled = rows["income"].fillna(rows["income"].median())
    np.testing.assert_allclose(found["income"], robust(filled, filled), rtol=1e-5)
    assert found["city=?"].tolist() == rows["city"].isna().astype(float).tolist()
    with pytest.raises(RequestError, match="trained no model: its spec has none"):
        assert made.model
    again = run(raw.drop(columns="buys"))
    assert again.id == made.id


def test_the_target_goes_along_as_it_is(run: Runs, raw: pd.DataFrame) -> None:
    frame = raw.assign(buys=raw["buys"].where(raw.index % 5 > 0, None))
    made = run(frame, data={"target": "buys", "protected": ["city"]})
    found = featured(made)
    assert list(found) == ["buys", "protected.city", *NAMES]
    pd.testing.assert_series_equal(found["buys"], frame.set_index("key")["buys"], check_names=False, check_dtype=False)
    assert not made.manifest["warnings"]
    # Rows without a target teach, too: the features are those of the job without one.
    pd.testing.assert_frame_equal(found[NAMES], featured(run(raw.drop(columns="buys"))))


def test_with_a_split_the_training_rows_teach(run: Runs, raw: pd.DataFrame) -> None:
    made = run(raw.drop(columns="buys"), split={"kind": "time", "column": "joined", "test_size": 0.3})
    assert [stage["stage"] for stage in made.manifest["stages"]] == ["read", "etl", "split", "features", "publish"]
    found = featured(made)
    assert list(found) == ["split", *NAMES]
    rows = raw.set_index("key")
    train = found["split"] == "train"
    assert 200 <= train.sum() <= 215
    assert rows["joined"][train].max() < rows["joined"][~train].min()
    np.testing.assert_allclose(found["age"], robust(rows["age"], rows["age"][train]), rtol=1e-5)


def test_a_job_with_models_makes_the_same_features(run: Runs, raw: pd.DataFrame) -> None:
    features = [*FEATURES[:2], TARGET, FEATURES[3]]
    split = {"kind": "stratified", "test_size": 0.25}
    how: dict[str, Any] = {"data": {"target": "buys", "positive_class": "yes"}, "split": split, "features": features}
    alone, beside = featured(run(**how)), featured(run(**how, models=["decision_tree"]))
    pd.testing.assert_frame_equal(alone, beside)


def test_target_encoding_without_a_split_finds_out_what_the_target_is(run: Runs, raw: pd.DataFrame) -> None:
    frame = raw[["key", "city", "buys"]].assign(buys=raw["buys"].where(raw.index % 7 > 0, None))
    made = run(frame, data={"target": "buys", "partitions": 3}, features=[TARGET])
    assert "split" not in [stage["stage"] for stage in made.manifest["stages"]]
    found = featured(made)
    share = (frame["buys"].dropna() == "yes").mean()
    assert list(found) == ["buys", "city"]
    assert abs(found["city"].mean() - share) < 0.05
    assert found["city"].nunique() > 5 * 3  # by city and fold
    alone = run(frame, data={"target": "buys", "partitions": 1}, features=[TARGET])
    pd.testing.assert_frame_equal(featured(alone), found)
    with pytest.raises(DataError, match="The target 'buys' has one class only"):
        run(frame.assign(buys="yes"), data={"target": "buys"}, features=[TARGET])


def test_many_levels_travel_with_the_model(run: Runs, raw: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    rows = 3000
    shop = rng.integers(0, 1200, rows)
    frame = pd.DataFrame(
        {
            "key": range(rows),
            "shop": [f"shop {i}" for i in shop],
            "place": [f"place {i}" for i in shop],
            "buys": np.where(rng.random(rows) < 0.2 + 0.6 * (shop % 2), "yes", "no"),
        }
    )
    features = [{"op": "target_encode", "columns": ["shop"]}, {"op": "frequency", "columns": ["place"]}]
    how: dict[str, Any] = {"data": {"target": "buys"}, "features": features, "models": ["decision_tree"]}
    made = run(frame, **how, predict={"rows": "test"}, explain={"rows": "none"})
    folder = Path(made.model.store.path(made.model.folder))
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        *("levels-0-levels-0.parquet", "levels-1-levels-0.parquet", "sample.parquet"),
    ]
    assert (folder / "bundle.json").stat().st_size < 20_000
    scored = made.table("predictions").to_pandas().set_index("id").sort_index()
    found = load_bundle(Store(str(folder.parents[2])), "people").predict(frame.drop(columns="buys"))
    pd.testing.assert_frame_equal(found.set_index("id").sort_index().loc[scored.index], scored, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": {"kind": "stratified"}}, "data.target: missing; split: .*stratified.* needs one, use random"),
        ({"features": [TARGET]}, r"features.0 \(target_encode\): it needs a target; name the column in data.target"),
        ({"features": FEATURES[:2]}, r"no feature operation encodes city \(text\), joined \(timestamp\)"),
        ({"data": {"target": "bays"}}, "Column 'bays' was not found in the rows after tables"),
    ],
    ids=["stratified", "target_encode", "text", "target"],
)
def test_refusals(run: Runs, raw: pd.DataFrame, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        run(raw.drop(columns="buys"), **changes)


def test_check_and_plan_know_the_job(tmp_path: Path, scheduler: str) -> None:
    from treadle.jobs.check import check_spec
    from treadle.jobs.plan import make_plan
    from treadle.jobs.spec import load_spec

    spec = people_spec(write_people(tmp_path / "p.parquet"), tmp_path / "root", scheduler, features=FEATURES)
    for section in ("models", "metric", "tables", "split"):
        del spec[section]
    spec["data"] = {"path": spec["data"]["path"], "id": "key", "target": "buys"}
    loaded = load_spec(spec)
    assert len(check_spec(loaded)["features"]) == 7
    plan = make_plan(loaded, str(tmp_path / "root"))
    assert [stage.name for stage in plan.stages] == ["read", "etl", "features", "publish"]
