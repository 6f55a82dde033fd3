"""Bundles: kept as files and back, and predictions that are a function of the row alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression

from tests.engine.parts import fitted_on
from treadle.engine.backend import Backend, kinds_of
from treadle.engine.bundle import Bundle, BundleDocument, load_bundle, publish_bundle, versions, write_bundle
from treadle.engine.document import Part
from treadle.engine.encoders import apply, to_matrix
from treadle.engine.models.base import Model, save_model
from treadle.engine.models.forest import ForestModel
from treadle.engine.models.linear import LinearModel
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program, Step
from treadle.engine.relational import Derive, Filter, Join, Side
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError, StorageError

FEATURES = [
    {"op": "impute", "columns": ["age", "area"], "indicator": True},
    {"op": "one_hot", "columns": ["city", "member"], "missing": "?", "unseen": "error"},
    {"op": "scale", "columns": "numeric"},
]
INPUTS = ["age", "city", "member", "area"]
CLASSES: dict[str, tuple[Any, ...]] = {"binary": (False, True), "multiclass": ("1", "b", "c"), "regression": ()}
DOCUMENT: dict[str, Any] = {
    **dict.fromkeys(["fingerprint", "run", "created", "target", "model"], "x"),
    **{key: {} for key in ("csv", "inputs", "libraries")},
    **dict.fromkeys(["steps", "left_out"], ()),
    "name": "m",
    "version": 1,
    "feature_inputs": INPUTS,
    "metrics": {"auc": float("nan")},
}


def raw_rows(rows: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    return pd.DataFrame(
        {
            "age": pd.array(np.where(rng.random(rows) < 0.2, None, rng.integers(-3, 80, rows)), dtype="Int64"),
            "city": pd.array(rng.choice(np.array(["Ulm", "Bonn", None], dtype=object), rows), dtype="str"),
            "member": pd.array(rng.random(rows) < 0.5, dtype="boolean"),
            "key": pd.array(np.arange(rows) // 2, dtype="Int64"),
        }
    )


def model_on(task: Any, matrix: np.ndarray) -> Model:
    target = np.arange(len(matrix)) % max(len(CLASSES[task]), 2)
    if task == "regression":
        linear = LinearRegression().fit(matrix, target)
        return LinearModel(task, "identity", linear.coef_, linear.intercept_, matrix.mean(axis=0))
    return ForestModel.of(task, RandomForestClassifier(5, random_state=0).fit(matrix, target))


def made_bundle(root: Path, task: str, id_column: str | None = None, **document: Any) -> Bundle:
    """A filter, a join, features and a model, fitted on the raw rows and written as a run does."""
    store, rows = Store(str(root)), raw_rows()
    areas = pd.DataFrame({"city": pd.array(["Ulm", "Bonn"], dtype="str"), "area": [118.7, 141.1]})
    store.write_parquet("stages/etl/side-1.parquet", Backend().table(areas))
    steps = (
        Step(0, Filter(op="filter", sql="age is null or age >= 0")),
        Step(1, Join(op="join", with_=Side(path="areas.parquet"), on=("city",)), "stages/etl/side-1.parquet"),
        Step(2, Derive(op="derive", name="area", sql="area / 10")),
    )
    program = Program(store, Backend(), tuple(kinds_of(rows).items()), id_column, steps)
    prepared = program.apply(rows.assign(**{ROW_ID: 0}))
    operations, kinds, _ = fitted_on(FEATURES, prepared[INPUTS])
    matrix = to_matrix(apply(prepared, operations, INPUTS), list(kinds), len(prepared))
    save_model(model_on(task, matrix), store, "stages/train")
    names = [f"stages/train/{name}" for name in store.list("stages/train")]
    files = tuple(Part(path=name, rows=0, bytes=store.fs.size(store.path(name))) for name in names)
    made = {"task": task, "classes": CLASSES[task], "id": id_column, "operations": operations, "features": tuple(kinds)}
    fields = BundleDocument.model_validate({**DOCUMENT, **made, **document})
    bundle = write_bundle(store, fields, files, program)
    publish_bundle(bundle)
    return bundle


@pytest.mark.parametrize(("task", "id_column"), [("binary", None), ("multiclass", "key"), ("regression", "key")])
def test_a_row_is_predicted_alike_alone_and_among_others(tmp_path: Path, task: str, id_column: str | None) -> None:
    made = made_bundle(tmp_path, task, id_column)
    bundle = load_bundle(Store(str(tmp_path)), "m")
    rows = raw_rows()
    kept = rows[rows["age"].isna() | (rows["age"] >= 0)]
    assert 0 < len(kept) < len(rows)
    whole = bundle.predict(rows)
    assert whole["id"].tolist() == (kept.index.tolist() if id_column is None else kept["key"].tolist())
    for explain in (False, True):
        expected = made.predict(rows, explain)
        pd.testing.assert_frame_equal(bundle.predict(rows, explain), expected)
        shuffled = rows.sample(frac=1, random_state=2)
        # The index of the frame does not matter, nor columns that the model does not know, nor the widths of types.
        extra = shuffled.astype({"age": "Float64"}).assign(more="x")[["more", *reversed(rows.columns)]]
        pd.testing.assert_frame_equal(bundle.predict(extra, explain), bundle.predict(shuffled, explain))
        ones = pd.concat([bundle.predict(rows[i : i + 1], explain) for i in range(4)], ignore_index=True)
        pd.testing.assert_frame_equal(ones.drop(columns="id"), expected[: len(ones)].drop(columns="id"), atol=1e-6)
        none = bundle.predict(rows[:0], explain)
        assert none.dtypes.to_dict() == expected.dtypes.to_dict()
        assert len(none) == 0
    assert bundle.tables(rows, start=1000)[0].column("id")[0].as_py() == whole["id"][0] + 1000 * (id_column is None)


@pytest.mark.parametrize("task", CLASSES)
def test_explanations_stand_beside_their_predictions(tmp_path: Path, task: str) -> None:
    """Ids repeat here: every key has two rows."""
    bundle = made_bundle(tmp_path, task, "key")
    predicted, explained = bundle.predict(raw_rows()), bundle.predict(raw_rows(), explain=True)
    classes = CLASSES[task] if task == "multiclass" else (None,)
    assert explained["id"].tolist() == [key for key in predicted["id"] for _ in classes]
    sums = explained[[*bundle.document.features, "bias"]].sum(axis=1).to_numpy().reshape(len(predicted), len(classes))
    for i, name in enumerate(classes):
        margin = predicted["margin" if name is None else f"margin_{name}"]
        np.testing.assert_allclose(sums[:, i], margin, atol=1e-5)
    if task == "multiclass":
        assert explained["class_explained"].tolist() == list(classes) * len(predicted)
        scores = predicted[[f"score_{name}" for name in classes]]
        assert predicted["class"].tolist() == [classes[i] for i in scores.to_numpy().argmax(axis=1)]
    if task == "binary":
        assert predicted["class"].tolist() == (predicted["score"] > 0.5).tolist()


def test_a_bundle_is_whole_in_its_folder(tmp_path: Path) -> None:
    made = made_bundle(tmp_path, "binary")
    assert sorted(path.name for path in (tmp_path / "models/m/1").iterdir()) == [
        *("MLmodel", "bundle.json", "model.arrow", "model.json", "python_env.yaml", "requirements.txt"),
        "side-1.parquet",
    ]
    expected = made.predict(raw_rows())
    for path in sorted((tmp_path / "stages").rglob("*.*")):
        path.unlink()
    again = load_bundle(Store(str(tmp_path)), "m")
    pd.testing.assert_frame_equal(again.predict(raw_rows()), expected)
    assert [type(value) for value in again.document.classes] == [bool, bool]
    assert again.document.operations == made.document.operations
    assert again.document.inputs == {"age": "int", "city": "text", "member": "bool", "key": "int"}
    assert repr(again) == "<Bundle m:1 x, binary, 10 features>"


def test_versions_and_refusals(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(RequestError, match=r"There is no model 'm' under .*. Models: \[\]"):
        load_bundle(store, "m")
    for version in (1, 2, 10):
        made_bundle(tmp_path, "binary", version=version)
    (tmp_path / "models/m/11").mkdir()
    assert versions(store, "m") == [1, 2, 10]
    assert load_bundle(store, "m").reference == "m:10"
    assert load_bundle(store, "m", 2).reference == "m:2"
    with pytest.raises(RequestError, match=r"Model 'm' has no version 11. Versions: \[1, 2, 10\]"):
        load_bundle(store, "m", 11)
    with pytest.raises(RequestError, match=r"There is no model 'M' under .*. Models: \[m\]. Did you mean 'm'\?"):
        load_bundle(store, "M")
    path = tmp_path / "models/m/2/bundle.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": 99}))
    with pytest.raises(RequestError, match="Model 'm' was written in bundle format 99, and this Treadle reads 1"):
        load_bundle(store, "m", 2)
    path.write_text(json.dumps({**document, "task": "guessing"}))
    with pytest.raises(
        StorageError, match=r"m/2/bundle.json is no bundle of this version of Treadle \(1 fields do not"
    ):
        load_bundle(store, "m", 2)


def test_rows_that_cannot_be_predicted_are_refused(tmp_path: Path) -> None:
    bundle, rows = made_bundle(tmp_path, "binary", "key"), raw_rows()
    with pytest.raises(RequestError, match="Missing in the input: 'city', which the model was trained on"):
        bundle.predict(rows.drop(columns="city"))
    with pytest.raises(
        DataError, match=r"Column 'city' has values that the training rows did not have: 'Trier' \(79 ro"
    ):
        bundle.predict(rows.assign(city="Trier"))
    with pytest.raises(DataError, match="The id column 'key' is null in 80 rows"):
        bundle.predict(rows.assign(key=None))
    with pytest.raises(RequestError, match="predict takes a pandas DataFrame of raw rows, not list"):
        bundle.predict([1])  # type: ignore[arg-type]
