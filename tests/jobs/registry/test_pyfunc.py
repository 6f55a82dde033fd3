"""MLflow's model of a bundle predicts what Treadle does, to the last bit, from rows of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import treadle
from tests.jobs.registry.conftest import Recorded
from treadle.engine.bundle import Bundle
from treadle.errors import RequestError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def models(recorded: Recorded) -> tuple[Bundle, Any]:
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(f"{recorded.root}/models/people/1")
    return treadle.load_model("people:1", root=recorded.root), loaded


def _with_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Every third value of every column but the id is null, in the types of pandas that have nulls."""
    frame = frame.astype({"age": "Int64", "member": "boolean"})
    for i, name in enumerate(["age", "income", "city", "member", "joined"]):
        frame.loc[frame.index % 3 == i % 3, name] = None
    return frame


KINDS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "as they are": lambda f: f,
    "with nulls": _with_nulls,
    "no rows": lambda f: f.iloc[:0],
    "all null": lambda f: f.assign(age=None, city=None, member=None, joined=pd.NaT, income=float("nan")),
    "whole numbers as floats": lambda f: f.astype({"age": "float64"}).mask(f.age > 60, None).assign(key=f.key),
    "floats as whole numbers": lambda f: f.assign(income=1000),
    "bool as int": lambda f: f.astype({"member": "int8"}),
    "float32": lambda f: f.astype({"income": "float32"}),
    "large ids": lambda f: f.assign(key=f.key + 2**53 + 1),
    "categories": lambda f: f.astype({"city": "category"}),
    "arrow": lambda f: _with_nulls(f).convert_dtypes(dtype_backend="pyarrow"),
    "another order, other columns": lambda f: f.iloc[::-1].assign(more="x")[[*f.columns[::-1], "more"]],
    "times with a zone": lambda f: f.assign(joined=f.joined.dt.tz_localize("Europe/Berlin", ambiguous="NaT")),
    "dates": lambda f: f.assign(joined=f.joined.dt.date),
    "times beyond nanoseconds": lambda f: f.assign(joined=pd.Timestamp("9999-01-02 03:04:05.000006")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_treadles(recorded: Recorded, models: tuple[Bundle, Any], kind: str) -> None:
    bundle, loaded = models
    rows = KINDS[kind](recorded.raw.drop(columns="buys").head(60))
    pd.testing.assert_frame_equal(loaded.predict(rows), bundle.predict(rows), check_exact=True)


def test_contributions_are_a_param(recorded: Recorded, models: tuple[Bundle, Any]) -> None:
    bundle, loaded = models
    rows = recorded.raw.head(20)
    expected = bundle.predict(rows, explain=True)
    assert "bias" in expected
    pd.testing.assert_frame_equal(loaded.predict(rows, params={"explain": True}), expected, check_exact=True)


def test_times_may_be_texts_as_in_json(recorded: Recorded, models: tuple[Bundle, Any]) -> None:
    bundle, loaded = models
    rows = recorded.raw.head(20)
    texts = rows.assign(joined=[None, *rows.joined[1:].map(lambda time: time.isoformat())])
    expected = bundle.predict(rows.assign(joined=[pd.NaT, *rows.joined[1:]]))
    pd.testing.assert_frame_equal(loaded.predict(texts), expected, check_exact=True)
    with pytest.raises(RequestError, match="Column 'joined' of the input holds texts that are no times"):
        loaded.predict(rows.assign(joined="soon"))


def test_what_treadle_refuses_is_refused_in_its_words(recorded: Recorded, models: tuple[Bundle, Any]) -> None:
    rows = recorded.raw.head(5)
    with pytest.raises(RequestError, match="Column 'age' of the input is text .*, but the model was trained on int"):
        models[1].predict(rows.assign(age="old"))
    with pytest.raises(Exception, match=r"missing inputs \['city'\]"):
        models[1].predict(rows.drop(columns="city"))


def test_a_copy_of_a_bundle_is_the_model(recorded: Recorded, models: tuple[Bundle, Any], tmp_path: Path) -> None:
    import shutil

    import mlflow.pyfunc

    copy = shutil.copytree(f"{recorded.root}/models/people/1", tmp_path / "anywhere")
    rows = recorded.raw.head(20)
    loaded = mlflow.pyfunc.load_model(str(copy))
    pd.testing.assert_frame_equal(loaded.predict(rows), models[0].predict(rows), check_exact=True)
    (copy / "bundle.json").unlink()
    with pytest.raises(RequestError, match="holds no model: there is no bundle.json in it"):
        mlflow.pyfunc.load_model(str(copy))


def test_mlflow_reads_the_signature(models: tuple[Bundle, Any]) -> None:
    signature = models[1].metadata.signature
    assert signature.inputs.input_names() == ["key", "age", "income", "city", "member", "joined"]
    assert {spec.name: spec.type.name for spec in signature.outputs} == {
        "id": "long", "score": "double", "margin": "double", "class": "string",
    }  # fmt: skip
    assert [(param.name, param.default) for param in signature.params] == [("explain", False)]
