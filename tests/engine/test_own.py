"""Estimators of users' own: allowed or not run, the same after they were kept, and clear about what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
from numpy.typing import NDArray

from tests.engine import own_estimators
from treadle.engine.artifacts import SplitRule
from treadle.engine.fitting import fit_estimator
from treadle.engine.job import Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model, load_model, read_model, save_model
from treadle.engine.models.catalogue import check_models, entry_of
from treadle.engine.models.import_path import VARIABLE, check_allowed
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError

HERE = "tests.engine.own_estimators"
ROWS = 120


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"elsewhere, {HERE}")


def matrix(seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(ROWS, 4)).astype(np.float32)


def target(rows: NDArray[np.float32], task: str) -> NDArray[np.float64]:
    signal = rows[:, 0] + 0.5 * rows[:, 1]
    bounds = {"binary": [0.0], "multiclass": [-0.5, 0.5]}
    return (np.digitize(signal, bounds[task]) if task in bounds else 3 * signal).astype(np.float64)


def config(name: str, **params: Any) -> ModelConfig:
    return ModelConfig(estimator=f"{HERE}:{name}", name="mine", params=params)


def trained(name: str, task: Any, weight: NDArray[np.float64] | None = None, **params: Any) -> Model:
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    rows = matrix()
    rule = SplitRule.model_construct(task=task, classes=classes)
    part = (rows, target(rows, task), *([weight] if weight is not None else []))
    return fit_estimator([part], config(name, **params), rule, 3)[0]


CASES = [("Centres", "binary"), ("Centres", "multiclass"), ("Mixed", "regression"), ("Ranks", "binary")]


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(("name", "task"), CASES)
def test_predicts_as_the_estimator_and_is_the_same_when_it_was_kept(name: str, task: str, tmp_path: Path) -> None:
    model, rows = trained(name, task), matrix(2)
    oracle = getattr(own_estimators, name)().fit(matrix(), target(matrix(), task))
    if name == "Ranks":
        expected = oracle.decision_function(rows)
        assert not model.has_probabilities
    else:
        expected = oracle.predict(rows) if task == "regression" else oracle.predict_proba(rows)
        expected = expected[:, 1] if task == "binary" else expected
    np.testing.assert_allclose(model.margin(rows), expected, rtol=1e-6)
    store = Store(str(tmp_path))
    save_model(model, store, "model")
    again = load_model(store, "model")
    np.testing.assert_array_equal(again.margin(rows), model.margin(rows))
    contributions = again.contributions(rows[:3])
    np.testing.assert_allclose(contributions.sum(axis=-1), model.margin(rows[:3]), atol=1e-9)
    for i in range(3):
        np.testing.assert_array_equal(model.margin(rows[i : i + 1])[0], model.margin(rows)[i])


@pytest.mark.usefixtures("allowed")
def test_weights_and_params_reach_it() -> None:
    weight = np.where(target(matrix(), "binary") == 1, 5.0, 1.0) * np.arange(1, ROWS + 1)
    assert entry_of(config("Centres")).weights
    assert not entry_of(config("Mixed")).weights
    weighted, plain = trained("Centres", "binary", weight), trained("Centres", "binary")
    assert not np.allclose(weighted.margin(matrix()), plain.margin(matrix()))
    sharp = trained("Centres", "binary", sharpness=9.0)
    assert np.abs(sharp.margin(matrix()) - 0.5).mean() > np.abs(plain.margin(matrix()) - 0.5).mean()


def test_nothing_is_imported_that_is_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "stranger.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    monkeypatch.syspath_prepend(str(tmp_path))
    stranger = ModelConfig(estimator="stranger:Model", name="mine")
    for allowed in ("", "strange", "stranger_things, other"):
        monkeypatch.setenv(VARIABLE, allowed)
        with pytest.raises(RequestError, match="estimator 'stranger:Model' is code, which is run only when its module"):
            entry_of(stranger)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv(VARIABLE, "stranger")
    with pytest.raises(RequestError, match="stranger has no 'Model'"):
        entry_of(stranger)
    assert (tmp_path / "ran").exists()


def test_a_kept_model_is_not_loaded_where_its_module_is_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, HERE)
    store = Store(str(tmp_path))
    save_model(trained("Mixed", "regression"), store, "model")
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(RequestError, match=f"set {VARIABLE}={HERE} where jobs run and models are loaded"):
        read_model(store, "model")


def test_modules_below_an_allowed_one_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tests.engine")
    check_allowed(f"{HERE}:Centres")
    with pytest.raises(RequestError):
        check_allowed("tests.engineering:Centres")


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Centre", "has no 'Centre'. Classes: .* Did you mean 'Centres'"),
        ("NoEstimator", "is no estimator: it has to be a class derived from scikit-learn's"),
        ("Labels", "Labels only predicts classes; give it predict_proba or decision_function"),
    ],
)
def test_what_is_no_estimator_is_refused_before_anything_runs(name: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        entry_of(config(name))


@pytest.mark.usefixtures("allowed")
def test_what_a_job_asks_for_has_to_fit() -> None:
    spec: dict[str, Any] = {"name": "own", "data": {"path": "x", "target": "y"}, "split": {"kind": "random"}}
    job = Job(**spec, models=[{"name": "mine", "estimator": f"{HERE}:Mixed", "params": {"alhpa": 1}}])
    with pytest.raises(RequestError, match="'mine' does not do classification"):
        check_models(job, "binary")
    with pytest.raises(RequestError, match=r"parameter 'alhpa' of mine is not known to it.* Did you mean 'alpha'"):
        check_models(job, "regression")
    weighted = Job(
        **{**spec, "data": {**spec["data"], "weight": "w"}}, models=[{"name": "mine", "estimator": f"{HERE}:Mixed"}]
    )
    with pytest.raises(RequestError, match="'mine' takes no weights"):
        check_models(weighted, "regression")


@pytest.mark.usefixtures("allowed")
def test_predictions_of_a_wrong_shape_and_what_cannot_be_kept_are_told() -> None:
    with pytest.raises(DataError, match=r"Short gives predict of shape \(1,\) for 256 rows"):
        trained("Short", "regression")
    with pytest.raises(DataError, match="Unkept cannot be kept by skops"):
        trained("Unkept", "regression")


@pytest.mark.parametrize("name", ["xgboost", "a b", "../x"])
def test_names_are_not_those_of_the_catalogue(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of an estimator of your own"):
        ModelConfig(estimator=f"{HERE}:Mixed", name=name)


@pytest.mark.slow
def test_a_whole_job_in_processes_that_are_allowed_to(tmp_path: Path) -> None:
    """Compared by folds beside a model of the catalogue, and one that fails; the best predicts from its bundle."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"""
apiVersion: treadle/v1
name: own
data: {{path: "sklearn://iris", target: target}}
features: [{{op: scale, columns: numeric}}]
split: {{kind: random}}
models:
  - {{name: centres, estimator: "{HERE}:Centres", params: {{sharpness: 2}}}}
  - {{name: unlucky, estimator: "{HERE}:Broken"}}
  - dummy
compare: {{folds: 3}}
explain: {{rows: none}}
cluster: {{workers: 1}}
"""
    )
    command = [sys.executable, "-m", "treadle", "run", str(spec), "--root", str(tmp_path / "root"), "--json"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "is code, which is run only when its module is allowed" in refused.stderr
    environment = {**os.environ, VARIABLE: HERE}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    manifest = json.loads(done.stdout)
    evaluation = manifest["results"]["evaluate"]
    assert evaluation["best"] == "centres"
    errors = {row["model"]: row["error"] for row in evaluation["rows"]}
    assert "no luck today" in errors["unlucky"]
    assert errors["centres"] is None
    frame = sklearn.datasets.load_iris(as_frame=True).data
    frame.columns = [name.replace(" ", "_") for name in frame.columns]
    frame.to_parquet(tmp_path / "new.parquet")
    predict = [sys.executable, "-m", "treadle", "predict", "--model", "own", "--input", str(tmp_path / "new.parquet")]
    more = ["--output", str(tmp_path / "out"), "--root", str(tmp_path / "root"), "--workers", "1", "--quiet"]
    subprocess.run([*predict, *more], check=True, env=environment, capture_output=True)
