"""Whole jobs whose models race, or search within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

import treadle
from tests.conftest import people_spec
from treadle.engine.relational.keys import hash_keys
from treadle.engine.rows import SAMPLE_SEED
from treadle.engine.trials import placement
from treadle.engine.trials.fold_data import nested_order
from treadle.jobs.run import Run

MODELS = ["lda", "naive_bayes", "logistic_regression", "decision_tree", "dummy", "ridge"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that a line parts more or less."""
    rng = np.random.default_rng(11)
    frame = pd.DataFrame(rng.normal(size=(1200, 4)), columns=list("abcd"))
    frame["y"] = np.where(frame.a + frame.b + rng.normal(size=1200) > 0.4, "yes", "no")
    frame["key"] = [f"k{i}" for i in range(1200)]
    path = tmp_path_factory.mktemp("race") / "rows.parquet"
    frame.to_parquet(path)
    return path


def raced(table: Path, root: Path, scheduler: str, partitions: int = 1, **sections: Any) -> Run:
    data = {"path": str(table), "target": "y", "positive_class": "yes", "id": "key", "partitions": partitions}
    given: dict[str, Any] = {
        "data": data,
        "tables": [],
        "features": [],
        "models": MODELS,
        "race": {"rows": 150, "keep": 2},
        "compare": {"folds": 3},
        "explain": {"rows": "none"},
    }
    return treadle.run(people_spec(table, root, scheduler, **{**given, **sections}))


def heats(run: Run) -> pd.DataFrame:
    return run.table("race").to_pandas().drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(table: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return raced(table, tmp_path_factory.mktemp("whole"), scheduler)


def test_the_better_half_goes_on_to_more_rows(whole: Run) -> None:
    found = heats(whole)
    assert found.groupby("heat")["rows"].unique().map(list).tolist() == [[150], [600]]
    first, second = (found[found["heat"] == number] for number in (0, 1))
    assert first["model"].tolist() == MODELS
    assert second["model"].tolist() == first.sort_values("value", ascending=False, kind="stable")["model"].tolist()[:3]
    best = second.sort_values("value", ascending=False, kind="stable")["model"].tolist()[:2]
    assert sorted(found.loc[found["kept"], "model"].unique()) == sorted(best)
    assert sorted(whole.leaderboard["model"]) == sorted(best)


def test_a_heat_is_what_scikit_learn_makes_of_the_same_rows(whole: Run, table: Path) -> None:
    frame = pd.read_parquet(table).set_index("key", drop=False)
    base = next(Path(whole.table("race").path).parents[2].glob("stages/trials-*"))
    test_ids = [pd.read_parquet(base / f"fold-{fold:03d}.parquet")["id"].tolist() for fold in range(3)]
    values = []
    for fold in range(2):
        others = [name for other in range(3) if other != fold for name in test_ids[other]]
        trained = frame[frame["key"].isin(others)]
        codes = (trained["y"] == "yes").to_numpy(np.float64)
        keys = hash_keys(trained["key"].reset_index(drop=True), 7 + SAMPLE_SEED)
        drawn = trained.iloc[nested_order(keys, codes, "binary")[:150]]
        model = LinearDiscriminantAnalysis().fit(drawn[list("abcd")].to_numpy(np.float32), drawn["y"])
        tested = frame.loc[test_ids[fold]]
        scores = model.predict_proba(tested[list("abcd")].to_numpy(np.float32))[:, 1]
        values.append(roc_auc_score(tested["y"] == "yes", scores))
    found = heats(whole).set_index(["model", "heat"])["value"]
    assert found["lda", 0] == pytest.approx(np.mean(values), abs=1e-9)


def test_partitions_change_nothing(whole: Run, table: Path, tmp_path: Path, scheduler: str) -> None:
    again = raced(table, tmp_path, scheduler, partitions=4)
    pd.testing.assert_frame_equal(heats(again), heats(whole), rtol=1e-9)


@pytest.mark.slow
def test_rows_that_no_worker_holds_are_drawn_where_they_are(
    table: Path, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, whole: Run
) -> None:
    monkeypatch.setattr(placement, "HELD_SHARE", 0.0)
    run = raced(table, tmp_path, scheduler, partitions=3)
    assert run.manifest["results"]["compare"]["placement"].startswith("each trial over all workers")
    found = heats(run)
    assert found["heat"].max() == 1
    assert found["error"].isna().all()
    last = found[(found["heat"] == 0) & (found["model"] != "dummy")].set_index("model")["value"]
    expected = heats(whole).query("heat == 0").set_index("model")["value"]
    np.testing.assert_allclose(last, expected[last.index], atol=0.1)


def test_a_budget_that_is_spent_at_once_leaves_the_quickest_model(table: Path, tmp_path: Path, scheduler: str) -> None:
    run = raced(table, tmp_path, scheduler, budget="1ms", tune={"models": 1, "trials": 50}, ensemble={})
    found = heats(run)
    assert found["heat"].max() == 0
    begun = found[found["error"].isna()]
    assert run.leaderboard["model"].tolist() == begun["model"].tolist()
    assert len(begun) == 1
    assert (found["error"].dropna() == "not begun: the budget was spent").all()
    assert run.table("trials").to_pandas().query("number > 0").empty


def test_a_budget_that_is_not_spent_changes_nothing(whole: Run, table: Path, tmp_path: Path, scheduler: str) -> None:
    run = raced(table, tmp_path, scheduler, budget="1h")
    pd.testing.assert_frame_equal(heats(run), heats(whole))
