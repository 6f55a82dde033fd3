"""Train/serve skew: a bundle that makes other features of its run's raw rows than the run did predicts nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine import exchange
from treadle.engine.bundle import Bundle, load_bundle
from treadle.engine.skew import SampleRecord
from treadle.engine.store import Store
from treadle.errors import DataError, StorageError
from treadle.jobs.predict import predict_files
from treadle.jobs.run import Run

TABLES: list[dict[str, Any]] = [
    {"op": "filter", "sql": "age > 20 or income is null"},
    {"op": "dedupe", "columns": ["age", "joined", "city"]},
    {
        "op": "aggregate", "by": ["city"], "broadcast": True,
        "aggregations": {"pay": {"function": "mean", "column": "income"}},
    },
    {"op": "drop", "columns": ["key"]},
]  # fmt: skip
FEATURES: list[dict[str, Any]] = [
    {"op": "impute", "columns": ["income", "pay"], "indicator": True},
    {"op": "date_parts", "columns": ["joined"], "parts": ["month"]},
    {"op": "target_encode", "columns": ["city"]},
    {"op": "scale", "columns": "numeric"},
]
ASIDE = [{"expect": "range", "column": "age", "max": 75, "otherwise": "quarantine"}]
SIDE = "side-2.parquet"


def spec_of(people: Path, root: Path, scheduler: str, partitions: int = 2, **changes: Any) -> dict[str, Any]:
    """A job with all that replays to a row's own features; rows have no id but their number."""
    data = {"path": str(people), "target": "buys", "positive_class": "yes", "partitions": partitions}
    sections = {"data": data, "tables": TABLES, "features": FEATURES, "contract": ASIDE, "explain": {"rows": "none"}}
    return people_spec(people, root, scheduler, **{**sections, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> tuple[Path, Run]:
    """The input and its run; tests work on copies of what it made."""
    folder = tmp_path_factory.mktemp("skew")
    people = write_people(folder / "people.parquet")
    return people, treadle.run(spec_of(people, folder / "a", scheduler))


@pytest.fixture
def copied(made: tuple[Path, Run], tmp_path: Path) -> Path:
    """The folder of a copy of the bundle, to be tampered with."""
    shutil.copytree(made[0].parent / "a", tmp_path / "a")
    return tmp_path / "a/models/people/1"


def opened(folder: Path) -> Bundle:
    return load_bundle(Store(str(folder.parents[2])), "people")


def raw_of(made: tuple[Path, Run]) -> pd.DataFrame:
    return pd.read_parquet(made[0]).drop(columns="buys")


def changed_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def changed_column(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    table = pq.read_table(path)
    column = pa.array(change(table.column(name).to_numpy()), table.schema.field(name).type)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), path)


def test_the_sample_is_of_the_run_and_not_of_its_partitions(
    made: tuple[Path, Run], tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, run = made
    samples = [run.model.store.read_parquet(f"{run.model.folder}/sample.parquet").to_pandas()]
    monkeypatch.setattr(exchange, "BUCKET_BYTES", 5000)
    for partitions in (1, 4):
        other = treadle.run(spec_of(people, tmp_path / str(partitions), scheduler, partitions)).model
        assert other.document.sample == run.model.document.sample
        samples.append(other.store.read_parquet(f"{other.folder}/sample.parquet").to_pandas())
    for other in samples[1:]:
        pd.testing.assert_frame_equal(other, samples[0], rtol=1e-5)
    sample, raw = samples[0].set_index("id"), raw_of(made)
    assert len(sample) == 32
    inputs = sample.filter(regex=r"^input\.").rename(columns=lambda name: name.removeprefix("input."))
    pd.testing.assert_frame_equal(inputs, raw.loc[sample.index, list(inputs)], check_names=False, check_dtype=False)
    assert set(inputs) == {"age", "income", "city", "member", "joined"}, "no target, and nothing that no feature needs"
    assert inputs[["income", "city"]].isna().any().all(), "nulls occur"
    features = run.table("features").to_pandas().set_index("id").loc[sample.index]
    assert (features["split"] == "test").all()
    for name in run.model.document.features:
        np.testing.assert_array_equal(sample[f"feature.{name}"], features[name])
    margins = run.table("predictions").to_pandas().set_index("id").loc[sample.index, "margin"]
    np.testing.assert_array_equal(sample["margin.0"], margins)
    run.model.verify()


def test_a_fresh_bundle_predicts_and_one_without_a_sample_too(made: tuple[Path, Run], copied: Path) -> None:
    expected = opened(copied).predict(raw_of(made))
    assert len(expected) > 500

    def older(document: dict[str, Any]) -> None:
        del document["sample"], document["features_fingerprint"]

    changed_json(copied / "bundle.json", older)
    (copied / "sample.parquet").unlink()
    pd.testing.assert_frame_equal(opened(copied).predict(raw_of(made)), expected)


def test_a_fitted_value_that_changed(copied: Path) -> None:
    def tamper(document: dict[str, Any]) -> None:
        (scale,) = [operation for operation in document["operations"] if operation["op"] == "scale"]
        scale["centre"]["income"] += 0.5

    changed_json(copied / "bundle.json", tamper)
    with pytest.raises(
        StorageError,
        match=r"Model 'people:1' is refused, it would not predict as trained: feature 'income' of row \d+ becomes "
        r"\S+, and was \S+ in the run. The versions of the libraries are those of then, so files in \S+/models/people/1"
        r" have changed: restore them, or train the model again",
    ):
        opened(copied)


def test_a_side_table_that_changed(made: tuple[Path, Run], copied: Path) -> None:
    before = opened(copied)
    before.predict(raw_of(made))
    changed_column(copied / SIDE, "pay", lambda pay: pay * 1.01)
    with pytest.raises(StorageError, match=r"feature 'pay' of row \d+ becomes \S+, and was \S+ in the run"):
        opened(copied).predict(raw_of(made))
    root, out = copied.parents[2], copied.parents[3] / "out"
    with pytest.raises(StorageError, match="'people:1' is refused, it would not predict as trained: feature 'pay'"):
        predict_files("people", [str(made[0])], str(out), root=str(root))
    assert not out.exists()
    changed_json(copied / "bundle.json", lambda document: document["libraries"].update(pandas="1.5.3", nothing="7"))
    with pytest.raises(
        StorageError,
        match=rf"feature 'pay' .* Versions differ: pandas {pd.__version__} \(it was 1.5.3\), nothing absent "
        r"\(it was 7\). Install those of then, or train the model again with --fresh",
    ):
        opened(copied).predict(raw_of(made))
    pq.write_table(pq.read_table(copied / SIDE).drop_columns(["pay"]), copied / SIDE)
    with pytest.raises(StorageError, match="raw rows of the run cannot be replayed: .*pay"):
        opened(copied).predict(raw_of(made))


def test_what_no_feature_shows(made: tuple[Path, Run], copied: Path) -> None:
    changed_column(copied / "sample.parquet", "margin.0", lambda margin: margin + 1e-3 * (np.arange(len(margin)) == 5))
    with pytest.raises(StorageError, match=r"with equal features the margin of row \d+ becomes \S+, and was \S+\. "):
        opened(copied).predict(raw_of(made))
    (copied / "sample.parquet").unlink()
    with pytest.raises(StorageError, match=r"sample.parquet cannot be read"):
        opened(copied).predict(raw_of(made))


def test_a_document_that_changed_where_no_row_shows_it(copied: Path) -> None:
    changed_json(copied / "bundle.json", lambda document: document.update(features_fingerprint="0" * 16))
    with pytest.raises(StorageError, match=r"how features are made has changed in \S+/bundle.json since it was publis"):
        opened(copied)


def test_a_bundle_that_is_refused_is_made_again(made: tuple[Path, Run], copied: Path, scheduler: str) -> None:
    spec = spec_of(made[0], copied.parents[2], scheduler)
    assert treadle.run(spec).manifest["model"] == "people:1"
    changed_column(copied / SIDE, "pay", lambda pay: pay + 1)
    again = treadle.run(spec)
    assert again.manifest["model"] == "people:2"
    assert len(again.model.predict(raw_of(made))) > 500


def test_what_would_be_refused_is_not_published(made: tuple[Path, Run], copied: Path, scheduler: str) -> None:
    """The features are a cached stage's, and the table that they are made with is another one by now."""
    root = copied.parents[2]
    (side,) = root.glob(f"stages/etl-*/{SIDE}")
    changed_column(side, "pay", lambda pay: pay + 1)
    changed_json(side.with_name("stage.json"), lambda document: document["sides"][0].update(bytes=side.stat().st_size))
    with pytest.raises(
        DataError,
        match=r"Model 'other:1' is not published, since it would not predict as it was trained: feature 'pay' of row "
        r"\d+ becomes \S+, and was \S+ in the run. .* run again with --fresh",
    ):
        treadle.run(spec_of(made[0], root, scheduler, name="other"))
    assert treadle.run(spec_of(made[0], root, scheduler, name="other"), fresh=True).manifest["model"] == "other:2"


WINDOW = {
    "op": "window", "by": ["city"], "order": "joined", "outputs": {"before": {"function": "lag", "column": "age"}},
}  # fmt: skip
DROP = {"op": "drop", "columns": ["joined", "key"]}


@pytest.mark.parametrize(
    ("tables", "id_column", "sample", "reason"),
    [
        ([WINDOW], None, 32, "tables.0 (window) looks at other rows than the one that it is about"),
        ([], None, 0, "the spec has artifacts.sample: 0"),
        ([], "twice", 32, "no row of the test set has an id that no other row has"),
    ],
)
def test_models_without_a_sample(
    made: tuple[Path, Run],
    tmp_path: Path,
    scheduler: str,
    tables: list[dict[str, Any]],
    id_column: str | None,
    sample: int,
    reason: str,
) -> None:
    raw = pd.read_parquet(made[0]).assign(twice=lambda frame: np.arange(len(frame)) // 2)
    raw.to_parquet(tmp_path / "people.parquet")
    spec = spec_of(tmp_path / "people.parquet", tmp_path, scheduler, contract=[], models=["decision_tree"])
    spec["data"]["id"] = id_column
    spec["artifacts"]["sample"] = sample
    model = treadle.run({**spec, "tables": [*tables, DROP], "features": [{"op": "one_hot", "columns": ["city"]}]}).model
    assert model.document.sample == SampleRecord(rows=0, reason=reason)
    assert not model.store.fs.exists(model.store.path(f"{model.folder}/sample.parquet"))
    assert len(model.predict(raw)) == len(raw)


def test_rows_are_found_by_ids_that_no_other_has(made: tuple[Path, Run], tmp_path: Path, scheduler: str) -> None:
    """Every third person is there twice; an id is a text here."""
    raw = pd.read_parquet(made[0]).assign(name=lambda frame: "p" + frame["key"].astype(str))
    pd.concat([raw, raw[::3].assign(age=50)], ignore_index=True).to_parquet(tmp_path / "people.parquet")
    spec = spec_of(tmp_path / "people.parquet", tmp_path, scheduler, contract=[], tables=[DROP])
    spec["data"]["id"] = "name"
    features = [{"op": "impute", "columns": ["income"]}, {"op": "one_hot", "columns": ["city"]}]
    model = treadle.run({**spec, "features": features, "models": ["decision_tree"]}).model
    sample = model.store.read_parquet(f"{model.folder}/sample.parquet").to_pandas().set_index("id")
    expected = raw[np.arange(len(raw)) % 3 > 0].set_index("name").loc[sample.index]
    assert len(sample) == 32
    np.testing.assert_array_equal(sample["input.income"], expected["income"])
    np.testing.assert_array_equal(sample["feature.age"], expected["age"])
    assert len(model.predict(raw)) == len(raw)


def test_samples_of_groups_and_of_another_file_for_the_test(
    made: tuple[Path, Run], tmp_path: Path, scheduler: str
) -> None:
    """Groups are rows of their own, with numbers for ids; of two files the rows of the second are for the test."""
    raw = pd.read_parquet(made[0])
    aggregations = {"pay": {"function": "mean", "column": "income"}, "n": {"function": "count"}}
    grouped = {"op": "aggregate", "by": ["age", "city", "buys"], "aggregations": aggregations}
    features = [{"op": "impute", "columns": "numeric"}, {"op": "one_hot", "columns": ["city"]}]
    spec = spec_of(made[0], tmp_path, scheduler, contract=[], features=features, models=["decision_tree"])
    model = treadle.run({**spec, "tables": [grouped]}).model
    sample = model.store.read_parquet(f"{model.folder}/sample.parquet").to_pandas()
    groups = raw.groupby(["age", "city", "buys"], dropna=False)["income"].mean().reset_index()
    assert len(sample) == 32
    np.testing.assert_allclose(sample["input.pay"], groups["income"].loc[sample["id"]], rtol=1e-12)
    assert sample["input.city"].fillna("?").tolist() == groups["city"].fillna("?").loc[sample["id"]].tolist()
    for name, rows in {"train.csv": raw[:400], "test.csv": raw[400:]}.items():
        rows.to_csv(tmp_path / name, index=False)
    spec["data"]["path"], spec["split"] = (
        str(tmp_path / "train.csv"),
        {"kind": "path", "path": str(tmp_path / "test.csv")},
    )
    model = treadle.run({**spec, "tables": [DROP, TABLES[2]]}).model
    sample = model.store.read_parquet(f"{model.folder}/sample.parquet").to_pandas().set_index("id")
    assert len(sample) == 32
    assert sample.index.min() >= 400
    np.testing.assert_array_equal(sample["input.age"], raw["age"].loc[sample.index])
