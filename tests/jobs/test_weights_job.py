"""Whole jobs whose training rows have weights, against libraries that are called with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn import metrics
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine import job_inputs, pipeline
from treadle.engine.job import Job
from treadle.engine.relational.keys import hash_keys
from treadle.engine.shards import HELD_BACK
from treadle.engine.trials import placement
from treadle.errors import DataError, RequestError, TreadleError
from treadle.jobs.run import Run
from treadle.kernels.hashing import uniform

FEATURES: dict[str, Any] = {
    "tables": [{"op": "drop", "columns": ["income"]}],
    "features": [
        {"op": "one_hot", "columns": ["city"], "missing": "?"},
        {"op": "date_parts", "columns": ["joined"], "parts": ["month", "weekday"]},
    ],
    "explain": {"rows": "none"},
}
"""Of few distinct values, so that XGBoost's bins are the values on any number of workers."""
FOREST: dict[str, Any] = {"n_estimators": 10, "max_depth": 4}
Runs = Callable[..., Run]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    frame = pd.read_parquet(write_people(tmp_path_factory.mktemp("raw") / "people.parquet"))
    # Of one city they count more, so that weights and features have to do with each other; some do not count.
    rng = np.random.default_rng(1)
    weight = np.where(frame["city"] == "Ulm", 3.0, 1.0) * rng.integers(0, 4, len(frame))
    return frame.assign(w=weight, ones=1)


@pytest.fixture
def run(tmp_path: Path, scheduler: str, raw: pd.DataFrame) -> Runs:
    """Runs a job on a frame with weights, some of its sections changed; `data` are those keys of the section."""

    def run(frame: pd.DataFrame = raw, data: dict[str, Any] | None = None, **changes: Any) -> Run:
        frame.to_parquet(tmp_path / "input.parquet", row_group_size=100)
        spec = people_spec(tmp_path / "input.parquet", tmp_path / "root", scheduler, **{**FEATURES, **changes})
        return treadle.run({**spec, "data": {**spec["data"], "weight": "w", **(data or {})}})

    return run


def table_of(run: Run) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The table of features by id; their matrix, codes of classes, weights, and which rows are for training."""
    table = run.table("features").to_pandas().sort_values("id", ignore_index=True)
    matrix = table[list(run.model.document.features)].to_numpy(np.float32)
    codes = (table["buys"] == "yes").to_numpy(np.int64)
    return table, matrix, codes, table["weight.w"].to_numpy(), (table["split"] == "train").to_numpy()


def library(name: str) -> Any:
    fixed = {"verbosity": -1, "deterministic": True, "force_col_wise": True, "random_state": 7}
    return {
        "lightgbm": lambda: lightgbm.LGBMClassifier(**fixed, n_estimators=10, n_jobs=1),
        "random_forest": lambda: RandomForestClassifier(**FOREST, random_state=7),
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=10, max_depth=3, n_jobs=1),
        "catboost": lambda: catboost_of(),
        "logistic_regression": lambda: LogisticRegression(tol=1e-12, solver="newton-cholesky", max_iter=1000),
        # With weights the variance that it smooths by is still that of rows without them.
        "naive_bayes": GaussianNB,
        "lda": LinearDiscriminantAnalysis,
        "mlp": lambda: MLPClassifier([5], max_iter=20, random_state=7),
    }[name]()


def fitted(name: str, matrix: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> Any:
    """The library's own, with weights; of whole ones rows are repeated where it takes none, or not for all it does."""
    if name in ("lda", "naive_bayes"):
        rows = np.repeat(np.arange(len(codes)), weight.astype(int))
        return library(name).fit(matrix[rows], codes[rows])
    return library(name).fit(matrix, codes, sample_weight=weight)


def catboost_of() -> Any:
    import catboost

    return catboost.CatBoostClassifier(n_estimators=10, logging_level="Silent", allow_writing_files=False,
                                       random_state=7, thread_count=1)  # fmt: skip


PARAMS: dict[str, Any] = {
    "lightgbm": {"n_estimators": 10},
    "random_forest": FOREST,
    "xgboost": {"n_estimators": 10, "max_depth": 3},
    "catboost": {"n_estimators": 10},
    "logistic_regression": {},
    "naive_bayes": {},
}
SOLVED = ("logistic_regression", "naive_bayes", "lda")
"""In float64."""


@pytest.mark.parametrize("name", PARAMS)
def test_a_model_of_a_job_is_that_of_its_library_with_weights(run: Runs, raw: pd.DataFrame, name: str) -> None:
    made = run(models=[{"name": name, "params": PARAMS[name]}], predict={"rows": "all"})
    _, matrix, codes, weight, train = table_of(made)
    np.testing.assert_array_equal(weight, raw["w"])
    assert "w" not in made.model.document.features
    wide = matrix.astype(np.float64) if name in SOLVED else matrix
    estimator = fitted(name, wide[train], codes[train], weight[train])
    found = made.table("predictions").to_pandas().sort_values("id")["score"].to_numpy()
    # Those that are solved exactly add sums up in another order, and XGBoost histograms of its workers.
    close = {"xgboost": 1e-4, "logistic_regression": 1e-6, "naive_bayes": 1e-6}.get(name, 1e-9)
    np.testing.assert_allclose(found, estimator.predict_proba(wide)[:, 1], rtol=0, atol=close)
    plain = fitted(name, wide[train], codes[train], np.ones(train.sum())).predict_proba(wide)[:, 1]
    assert np.abs(plain - found).max() > 0.01
    (row,) = made.leaderboard.to_dict("records")
    test = ~train
    assert row["auc"] == pytest.approx(metrics.roc_auc_score(codes[test], found[test]), abs=1e-9)
    assert row["log_loss"] == pytest.approx(metrics.log_loss(codes[test], found[test]), rel=1e-6)
    assert row["rows_used"] == train.sum()
    # Rows to predict need no weights.
    again = made.model.predict(raw.drop(columns=["buys", "w"])).sort_values("id")["score"]
    np.testing.assert_allclose(again, found, rtol=1e-9)


def test_numbers_too(run: Runs) -> None:
    models = ["ridge", {"name": "lasso", "params": {"alpha": 0.5}}]
    made = run(data={"target": "age", "positive_class": None}, models=models, metric=None, predict={"rows": "all"},
               split={"kind": "random"}, tables=[{"op": "drop", "columns": ["income", "buys"]}])  # fmt: skip
    table = made.table("features").to_pandas()
    train = (table["split"] == "train").to_numpy()
    matrix, values = table[list(made.model.document.features)].to_numpy(np.float64), table["age"].to_numpy()
    board = made.leaderboard.set_index("model")
    for name, estimator in (("ridge", Ridge()), ("lasso", Lasso(alpha=0.5))):
        estimator.fit(matrix[train], values[train], sample_weight=table["weight.w"][train])
        expected = metrics.root_mean_squared_error(values[~train], estimator.predict(matrix[~train]))
        assert board["rmse"][name] == pytest.approx(expected, rel=1e-6)


COMPARED = ["logistic_regression", "naive_bayes", "lda", "lightgbm", "xgboost", "mlp", "ridge"]


def compared(name: str) -> dict[str, Any]:
    network = {"hidden_layer_sizes": [5], "max_iter": 20}
    return {"name": name, "params": network if name == "mlp" else PARAMS.get(name, {})}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("share", "kind"),
    [
        pytest.param(0.5, "stack", id="on-threads"),
        pytest.param(0.0, "blend", id="over-workers", marks=pytest.mark.slow),
    ],
)
def test_folds_are_those_of_a_plain_loop_with_weights(
    run: Runs, raw: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, share: float, kind: str
) -> None:
    """Folds are given, so that the loop has the same; it weighs the rows to train on, and no row that it measures."""
    monkeypatch.setattr(placement, "HELD_SHARE", share)
    frame = raw.assign(part=np.where(np.arange(len(raw)) % 4 == 0, np.nan, np.arange(len(raw)) % 3))
    made = run(frame, models=[compared(name) for name in COMPARED], split={"kind": "folds", "column": "part"},
               features=[{"op": "one_hot", "columns": ["city"], "missing": "?"}],
               tables=[{"op": "drop", "columns": ["income", "joined"]}],
               ensemble={"kind": kind})  # fmt: skip
    told = made.manifest["results"]["compare"]["placement"]
    assert told.startswith("each trial over all workers" if share == 0.0 else "each trial on a thread")
    _, matrix, codes, weight, train = table_of(made)
    part = frame["part"].to_numpy()
    np.testing.assert_array_equal(train, ~np.isnan(part))
    of_folds = made.table("folds").to_pandas()
    for name in COMPARED:
        if name == "ridge":
            continue
        for fold in range(3):
            rows, measured = train & (part != fold), part == fold
            wide = matrix.astype(np.float64) if name in (*SOLVED, "mlp") else matrix
            estimator = fitted(name, wide[rows], codes[rows], weight[rows])
            score = estimator.predict_proba(wide[measured])[:, 1]
            (found,) = of_folds[(of_folds["model"] == name) & (of_folds["fold"] == fold)].to_dict("records")
            close = 1e-3 if name == "xgboost" else 1e-6
            assert found["log_loss"] == pytest.approx(metrics.log_loss(codes[measured], score), rel=close), name
            assert found["auc"] == pytest.approx(metrics.roc_auc_score(codes[measured], score), abs=close), name
    assert set(made.leaderboard["model"]) == {*COMPARED, "ensemble"}
    assert made.leaderboard["error"].isna().all()
    again = made.model.predict(frame.drop(columns=["buys", "w", "part"]))
    assert len(again) == len(frame)


MANY: list[Any] = ["lda", "logistic_regression", "naive_bayes", {"name": "decision_tree", "params": {"max_depth": 4}}]


@pytest.mark.parametrize("folds", [pytest.param(None, marks=pytest.mark.slow), {"folds": 3}])
def test_partitions_change_nothing_and_weights_of_one_are_none(run: Runs, folds: dict[str, Any] | None) -> None:
    def scores(dropped: Sequence[str] = ("ones",), **data: Any) -> pd.DataFrame:
        tables = [{"op": "drop", "columns": ["income", *dropped]}]
        extra = {} if folds is None else {"compare": folds}
        made = run(data=data, models=MANY, metric="log_loss", tables=tables, **extra)
        board = made.leaderboard.set_index("model").sort_index()
        kept = [name for name in board if name not in ("train_seconds", "predict_seconds", "peak_bytes", "p_value")]
        return board[kept]

    one, several = scores(partitions=1), scores(partitions=6)
    pd.testing.assert_frame_equal(one, several, rtol=1e-6)
    ones, none = scores(["w"], weight="ones"), scores(["w", "ones"], weight=None)
    assert (one["log_loss"] != ones["log_loss"]).all()
    pd.testing.assert_frame_equal(ones, none, rtol=1e-6)


def test_early_stopping_weighs_the_rows_that_it_holds_back(run: Runs) -> None:
    stopping = {"rounds": 5, "share": 0.25}
    made = run(models=[{"name": "xgboost", "params": {"n_estimators": 200}, "early_stopping": stopping}],
               predict={"rows": "all"})  # fmt: skip
    table, _, codes, weight, train = table_of(made)
    held = train & (uniform(hash_keys(table["id"], 7 + HELD_BACK)) < 0.25)
    (note,) = made.manifest["warnings"]
    score = made.table("predictions").to_pandas().sort_values("id")["score"].to_numpy()
    loss = metrics.log_loss(codes[held], score[held], sample_weight=weight[held])
    assert float(note.partition("logloss ")[2].partition(" ")[0]) == pytest.approx(loss, rel=1e-5)
    assert note.endswith(f"on {held.sum()} rows held back")
    nothing = table.loc[held, "id"]
    frame = pd.read_parquet(made._store.path("../input.parquet"))
    with pytest.raises(TreadleError, match=f"all {held.sum()} training rows that early_stopping of xgboost"):
        run(frame.assign(w=np.where(frame["key"].isin(nothing), 0.0, 1.0)),
            models=[{"name": "xgboost", "early_stopping": stopping}])  # fmt: skip


def test_a_weight_is_a_feature_where_an_operation_names_it(run: Runs, raw: pd.DataFrame) -> None:
    named = [{"op": "scale", "columns": ["w"]}, *FEATURES["features"]]
    made = run(models=["decision_tree"], features=named)
    assert "w" in made.model.document.features
    np.testing.assert_array_equal(made.table("features").to_pandas().sort_values("id")["weight.w"], raw["w"])
    protected = run(raw.assign(w=raw["w"] / 1000), models=["decision_tree"], data={"protected": ["w"]})
    assert "w" not in protected.model.document.features
    (said,) = protected.manifest["warnings"]
    assert said.startswith("data.weight: the weights of 'w' that are not 0 are 0.00")
    assert made.manifest["warnings"] == []


def test_weights_may_be_made_of_the_target(run: Runs, raw: pd.DataFrame) -> None:
    """Rows to predict have none: what makes the weights is not replayed."""
    derived = {"op": "derive", "name": "v", "sql": "case when buys = 'yes' then 4 else 1 end"}
    models = [{"name": "logistic_regression", "label": "by-class", "params": {"class_weight": {"yes": 4}}}]
    found = run(data={"weight": "v"}, tables=[derived, {"op": "drop", "columns": ["income", "w"]}],
                models=["logistic_regression"], predict={"rows": "all"})  # fmt: skip
    expected = run(data={"weight": None}, tables=[{"op": "drop", "columns": ["income", "w"]}], models=models,
                   predict={"rows": "all"})  # fmt: skip
    scores = [made.table("predictions").to_pandas().sort_values("id")["score"].to_numpy() for made in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-6)
    again = found.model.predict(raw.drop(columns=["buys", "w"])).sort_values("id")["score"]
    np.testing.assert_allclose(again, scores[0], rtol=1e-9)


def test_a_feature_job_writes_weights_beside_the_features(run: Runs, raw: pd.DataFrame) -> None:
    """It trains nothing, so that it does not look at them."""
    made = run(raw.assign(w=raw["w"].where(raw["w"] > 0)), models=[])
    table = made.table("features").to_pandas().sort_values("id")
    assert list(table)[:4] == ["id", "split", "buys", "weight.w"]
    np.testing.assert_array_equal(table["weight.w"].isna(), raw["w"] == 0)
    assert not {"w"} & set(table)


def test_a_preset_does_without_models_that_take_no_weights(run: Runs) -> None:
    made = run(models="fast", compare={"folds": 2}, predict={"rows": "none"}, metric="auc")
    board = made.leaderboard.set_index("model")
    assert "k_neighbours" not in board.index
    assert board["error"].drop("qda").isna().all()
    said = "models: [k_neighbours] left out: they take no weights (data.weight)"
    assert said in made.manifest["warnings"]
    with pytest.raises(RequestError, match="models: 'k_neighbours' takes no weights, and data.weight is 'w': scikit"):
        run(models=["k_neighbours"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({3: np.nan}, "no weight in 1 of .* training rows .1 null; the first is null, in the row with the id 1003"),
        (
            {3: -2.0, 5: np.inf},
            r"no weight in 2 .* \(1 negative, 1 infinite; the first is -2.0, in the row with",
        ),
        (dict.fromkeys(range(600), 0.0), "column 'w' is 0 in all 300 training rows, so that no row is learned from"),
    ],
)
def test_rows_without_a_weight_are_refused_before_anything_is_trained(
    run: Runs, raw: pd.DataFrame, tmp_path: Path, change: dict[int, float], words: str
) -> None:
    """In rows of the test set they do not count."""
    frame = raw.assign(w=raw["w"].astype(float) + 1, part=np.arange(600) % 2)
    frame["part"] = frame["part"].where(frame["part"] == 1).astype(float)
    sections: dict[str, Any] = {"models": ["dummy", "lda"], "split": {"kind": "folds", "column": "part"}}
    wrong = frame.copy()
    wrong.loc[list(change), "w"] = list(change.values())
    with pytest.raises(DataError, match=words):
        run(wrong, **sections)
    stages = {path.name.partition("-")[0] for path in (tmp_path / "root" / "stages").iterdir()}
    assert stages & {"compare", "refit", "trials"} == set()
    elsewhere = frame.copy()
    elsewhere.loc[elsewhere["part"].isna(), "w"] = np.nan
    elsewhere["part"] = elsewhere["part"].where(elsewhere["part"].isna(), np.arange(600) // 2 % 2)
    assert run(elsewhere, **sections).leaderboard["error"].isna().all()


def test_only_stages_that_depend_on_the_weights_are_made_again(people: Path, scheduler: str, tmp_path: Path) -> None:
    def fingerprints(**data: Any) -> dict[str, str]:
        spec = people_spec(people, tmp_path, scheduler, models=MANY, tune={"models": 1}, ensemble={})
        sections = {key: value for key, value in spec.items() if key not in ("apiVersion", "artifacts", "cluster")}
        job = Job.model_validate({**sections, "data": {**spec["data"], **data}})
        return {stage.name: stage.fingerprint for stage in pipeline.stages_of(job, job_inputs.inspect(job))}

    none, age, income = fingerprints(), fingerprints(weight="age"), fingerprints(weight="income")
    for one, other in ((none, age), (age, income)):
        same = {name for name in one if one[name] == other[name]}
        assert same == {"read", "etl", "split", "folds"}
    assert {"features", "compare", "tune", "ensemble", "refit", "evaluate", "predict"} < set(none)
