"""Whole jobs whose best model is an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import treadle
from tests.conftest import people_spec
from treadle.engine.models.base import load_model, save_model
from treadle.engine.models.ensemble import EnsembleModel
from treadle.engine.store import Store
from treadle.errors import DataError
from treadle.jobs.commands import console
from treadle.jobs.run import Run

TREE: dict[str, Any] = {"name": "decision_tree", "params": {"max_depth": 4}}
FOREST: dict[str, Any] = {"name": "random_forest", "params": {"n_estimators": 20, "max_depth": 5}}


@pytest.fixture
def bent(tmp_path: Path) -> Path:
    """800 rows of a target that follows a plane, which linear models see, and steps, which trees see."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(800, 4))
    hidden = x[:, 0] + 0.7 * x[:, 1] + 0.8 * np.where(x[:, 2] > 0, 1, -1) + 0.6 * np.sign(x[:, 3])
    noisy = hidden + 0.7 * rng.normal(size=800)
    frame = pd.DataFrame(x, columns=list("abcd"))
    frame["value"] = 20 + 3 * noisy
    frame["buys"] = np.where(noisy > 0.3, "yes", "no")
    frame["kind"] = np.select([noisy < -0.8, noisy < 0.8], ["low", "middle"], "high")
    frame["key"] = np.arange(800)
    path = tmp_path / "bent.parquet"
    frame.to_parquet(path)
    return path


@pytest.fixture
def run_bent(bent: Path, tmp_path: Path, scheduler: str) -> Callable[..., Run]:
    def run(target: str, models: list[Any], **changes: Any) -> Run:
        others = [name for name in ("value", "buys", "kind") if name != target]
        sections = {
            "data": {"path": str(bent), "target": target, "id": "key", "partitions": 2},
            "tables": [{"op": "drop", "columns": others}],
            "features": [],
            "split": {"kind": "random", "test_size": 0.1},
            "models": models,
            "metric": None,
            "compare": {"folds": 3},
            **changes,
        }
        return treadle.run(people_spec(bent, tmp_path / "root", scheduler, **sections))

    return run


def check_published(run: Run, bent: Path) -> EnsembleModel:
    """The bundle predicts what the tables have, and contributions add up; its model."""
    assert run.manifest["results"]["evaluate"]["best"] == "ensemble", run.leaderboard.iloc[:, :9].to_string()
    assert run.model.document.model == "ensemble"
    model = run.model.model
    assert isinstance(model, EnsembleModel)
    table = run.table("predictions").to_pandas()
    raw = pd.read_parquet(bent).set_index("key", drop=False).loc[table["id"]].reset_index(drop=True)
    again = run.model.predict(raw)
    pd.testing.assert_frame_equal(again.reset_index(drop=True), table, rtol=1e-12)
    explained = run.table("explanations").to_pandas()
    margins = table[[name for name in table.columns if name.startswith("margin")]].to_numpy().ravel()
    total = explained[[*"abcd", "bias"]].to_numpy(dtype=float).sum(axis=1)
    np.testing.assert_allclose(total, margins, atol=1e-5 * np.abs(margins).max())
    return model


def test_the_average_of_forests_is_explained_exactly(
    run_bent: Callable[..., Run], bent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of probabilities; beside it the row of the leaderboard, from what is kept of the folds."""
    extra = {"name": "extra_trees", "params": {"n_estimators": 20, "max_depth": 6}}
    run = run_bent(
        "buys", [FOREST, extra, TREE], ensemble={"kind": "blend"}, decision={"calibrate": "sigmoid", "threshold": "f1"}
    )
    model = check_published(run, bent)
    mixture = run.manifest["results"]["ensemble"]["ensemble"]
    assert (mixture["kind"], mixture["members"]) == ("blend", list(model.titles))
    assert model.method.startswith("contributions of the members, added up as their average (0.")
    assert "random_forest: TreeSHAP, path-dependent, exact" in model.method
    assert run.manifest["results"]["explain"]["method"] == model.method
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    weighted = sum(w * m.margin(rows) for w, m in zip(mixture["weights"], model.members, strict=True))
    np.testing.assert_allclose(model.margin(rows), weighted, rtol=1e-12)
    assert model.calibration is not None
    # The leaderboard's row is of predictions that are kept, and calibration and threshold are made of them.
    (folder,) = (tmp_path / "root/stages").glob("ensemble-*")
    kept = [pd.read_parquet(path) for path in sorted(folder.glob("fold-*.parquet"))]
    (trials,) = (tmp_path / "root/stages").glob("trials-*")
    truth = [pd.read_parquet(path) for path in sorted(trials.glob("fold-*.parquet"))]
    aucs = [metrics.roc_auc_score(t["target"], k["score_0"]) for t, k in zip(truth, kept, strict=True)]
    board = run.leaderboard.set_index("model")
    assert board["auc"]["ensemble"] == pytest.approx(np.mean(aucs), rel=1e-12)
    assert board["auc"]["ensemble"] > board["auc"].drop("ensemble").max()
    assert (run.table("folds").to_pandas()["model"] == "ensemble").sum() == 3
    assert run.model.document.metrics["auc"] == board["auc"]["ensemble"]
    console.show_run(run, full=False)
    told = ", ".join(f"{w:.2f} {m}" for w, m in zip(mixture["weights"], mixture["members"], strict=True))
    assert f"ensemble (blend): {told}\n" in capsys.readouterr().out


def test_another_kind_is_made_of_the_same_trials(run_bent: Callable[..., Run], bent: Path, tmp_path: Path) -> None:
    """Of log-odds: sampled, or here, of few features, enumerated. A model without probabilities is left out."""
    models = ["lda", TREE, {"name": "xgboost", "params": {"n_estimators": 6, "max_depth": 2}}, "ridge"]
    first = run_bent("buys", models, ensemble={"kind": "stack"})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("trials-*/*/*.parquet")}
    model = check_published(first, bent)
    titles = {"lda", "decision_tree", "xgboost"}
    assert set(model.titles) == titles
    assert model.method.startswith(f"of the linear model of {', '.join(model.titles)}: Shapley values, exact over all")
    odds = [np.log(s / (1 - s)) for s in (m.scores(m.margin(MIXED)).clip(1e-6, 1 - 1e-6) for m in model.members)]
    mixture = first.manifest["results"]["ensemble"]["ensemble"]
    expected = np.stack(odds, axis=1) @ mixture["coefficients"][0] + mixture["intercept"][0]
    np.testing.assert_allclose(model.margin(MIXED), expected, rtol=1e-9)
    ensemble = {"kind": "greedy", "size": 6, "models": ["lda", "xgboost", "ridge"]}
    second = run_bent("buys", models, ensemble=ensemble)
    statuses = {record["stage"]: record["status"] for record in second.manifest["stages"]}
    assert statuses["compare"] == "cached"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("trials-*/*/*.parquet")} == before
    mixture = second.manifest["results"]["ensemble"]["ensemble"]
    assert set(mixture["members"]) <= {"lda", "xgboost"}
    np.testing.assert_allclose(sum(mixture["weights"]), 1)
    assert "ensemble: ridge is left out, since it gives no probabilities" in second.manifest["warnings"]


MIXED = np.random.default_rng(4).normal(size=(50, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", [pytest.param("greedy", marks=pytest.mark.slow), "stack"])
def test_of_numbers_contributions_are_those_of_the_members(run_bent: Callable[..., Run], bent: Path, kind: str) -> None:
    run = run_bent("value", ["linear_regression", FOREST, TREE], ensemble={"kind": kind})
    model = check_published(run, bent)
    assert {"linear_regression", "random_forest"} <= set(model.titles)
    bias = 0.0 if kind == "greedy" else run.manifest["results"]["ensemble"]["ensemble"]["intercept"][0]
    expected = sum(w * m.contributions(MIXED) for w, m in zip(model.weights, model.members, strict=True))
    expected[:, -1] += bias
    np.testing.assert_allclose(model.contributions(MIXED), expected, rtol=1e-12, atol=1e-12)
    assert "linear_regression: linear, features independent" in model.method


@pytest.mark.parametrize("kind", ["blend", pytest.param("stack", marks=pytest.mark.slow)])
def test_several_classes(run_bent: Callable[..., Run], bent: Path, kind: str) -> None:
    run = run_bent("kind", ["lda", FOREST], ensemble={"kind": kind}, explain={"rows": "test"})
    model = check_published(run, bent)
    score = model.scores(model.margin(MIXED))
    np.testing.assert_allclose(score.sum(axis=1), 1)
    assert (score > 0).all()


def test_where_fewer_than_two_models_are_left_there_is_none(run_bent: Callable[..., Run]) -> None:
    run = run_bent("buys", ["lda", "ridge"], metric="auc", ensemble={}, explain={"rows": "none"})
    assert "ensemble" not in run.leaderboard["model"].tolist()
    (said,) = [text for text in run.manifest["warnings"] if text.startswith("ensemble")]
    assert said == "ensemble: it needs two models or more that have probabilities and did not fail: [lda] left"


def test_a_member_that_refuses_nulls_makes_the_ensemble_refuse_them(
    run_bent: Callable[..., Run], tmp_path: Path
) -> None:
    run = run_bent("value", ["linear_regression", FOREST], ensemble={}, explain={"rows": "none"})
    model = run.model.model
    assert isinstance(model, EnsembleModel)
    rows = MIXED.copy()
    rows[3, 2] = np.nan
    with pytest.raises(DataError, match="1 rows have nulls, which a linear model cannot predict from"):
        model.margin(rows)
    forests = EnsembleModel("regression", ("a", "b"), [model.members[model.titles.index("random_forest")]] * 2,
                            type(model.combination)(np.array([0.25, 0.75])))  # fmt: skip
    store = Store(str(tmp_path / "other"))
    save_model(forests, store, "x")
    assert {"model.json", "model.0.json", "model.0.arrow", "model.1.json", "model.1.arrow"} == set(store.list("x"))
    np.testing.assert_allclose(load_model(store, "x").margin(rows), forests.members[0].margin(rows), rtol=1e-12)


SECONDS = ["train_seconds", "predict_seconds", "peak_bytes"]


def mixtures(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.manifest["results"]["ensemble"]["ensemble"]
    return found


@pytest.mark.parametrize("kind", ["greedy", *(pytest.param(k, marks=pytest.mark.slow) for k in ("blend", "stack"))])
def test_partitions_change_nothing(run_bent: Callable[..., Run], bent: Path, kind: str) -> None:
    """Neither what the ensemble is made of nor what it predicts; its members are solved from sums, and trees."""
    runs = []
    for partitions in (1, 5):
        data = {"path": str(bent), "target": "buys", "id": "key", "partitions": partitions}
        runs.append(
            run_bent("buys", ["lda", TREE, FOREST], data=data, ensemble={"kind": kind}, explain={"rows": "none"})
        )
    one, five = (mixtures(run) for run in runs)
    assert one["members"] == five["members"]
    for key in ("weights", "coefficients", "intercept"):
        np.testing.assert_allclose(one[key], five[key], rtol=1e-6)
    boards = [run.leaderboard.drop(columns=SECONDS) for run in runs]
    pd.testing.assert_frame_equal(*boards, rtol=1e-6)
    assert "ensemble" in boards[0]["model"].tolist()
    tables = [run.table("predictions").to_pandas().sort_values("id", ignore_index=True) for run in runs]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)


def test_folds_by_time(run_bent: Callable[..., Run], bent: Path, tmp_path: Path) -> None:
    """Rows of the first stretch are trained on only, so that no fold has scores of them."""
    sections: dict[str, Any] = {"ensemble": {"kind": "blend"}, "explain": {"rows": "none"}}
    frame = pd.read_parquet(bent).assign(at=pd.date_range("2026-01-01", periods=800, freq="h"))
    frame.to_parquet(bent)
    run = run_bent(
        "value",
        ["linear_regression", FOREST, TREE],
        tables=[{"op": "drop", "columns": ["buys", "kind"]}],
        compare={"folds": 3, "by": "time", "column": "at"},
        **sections,
    )
    results = run.manifest["results"]
    (folder,) = (tmp_path / "root/stages").glob("ensemble-*")
    kept = [pd.read_parquet(path) for path in sorted(folder.glob("fold-*.parquet"))]
    assert [len(rows) for rows in kept] == results["folds"]["rows"]
    assert sum(map(len, kept)) < results["split"]["train_rows"]
    (trials,) = (tmp_path / "root/stages").glob("trials-*")
    truth = [pd.read_parquet(path) for path in sorted(trials.glob("fold-*.parquet"))]
    errors = [metrics.root_mean_squared_error(t["target"], k["score_0"]) for t, k in zip(truth, kept, strict=True)]
    board = run.leaderboard.set_index("model")
    assert board["rmse"]["ensemble"] == pytest.approx(np.mean(errors), rel=1e-12)
    members = mixtures(run)["members"]
    assert board["train_seconds"]["ensemble"] > board["train_seconds"][members].sum()
