"""What tuning asks for and drops, by outcomes that are given; its spaces against the libraries; wrong sections."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from treadle.engine.artifacts import SplitRule, deciding
from treadle.engine.fitting import fit_model
from treadle.engine.job import Job, Model
from treadle.engine.models.base import Task
from treadle.engine.models.catalogue import CATALOGUE, check_params
from treadle.engine.models.spaces import SPACES, check_tuning, space_of
from treadle.engine.sections.base import seconds_of
from treadle.engine.sections.tune import Dimension, Tune
from treadle.engine.trials.outcome import Outcome
from treadle.engine.trials.tuning import (
    HOPELESS,
    MEASURED,
    RANDOM,
    Attempt,
    Search,
    is_hopeless,
    point_of,
    rungs,
)
from treadle.errors import RequestError

SPACE = {
    "alpha": Dimension(low=1e-3, high=1e3, log=True),
    "depth": Dimension(low=2, high=9),
    "kind": Dimension(choices=("a", None, [1, 2])),
}
FOLDS = 6


def score(params: dict[str, Any], fold: int) -> float:
    """Best where alpha is 10, depth 4 and the kind a list; every fold has its own level."""
    away = abs(math.log10(params["alpha"]) - 1) + abs(params["depth"] - 4) / 5 + (params["kind"] != [1, 2])
    return 1 / (1 + away) + math.sin(7 * fold) / 50


def outcomes(attempt: Attempt, folds: Any, metric: str = "auc") -> list[Outcome]:
    sign = -1.0 if metric == "rmse" else 1.0
    return [Outcome({metric: sign * score(attempt.config.params, fold)}, train_seconds=1.0) for fold in folds]


def searched(limit: int, seed: int = 1, metric: str = "auc", together: int = 3) -> Search:
    """A study to its end, so many attempts at a time, each from fold to fold."""
    own = [Outcome({metric: -0.1 if metric == "auc" else 0.1})] * FOLDS
    search = Search(Model(name="ridge"), SPACE, metric, "regression", own, limit, seed)
    active: list[Attempt] = []
    while True:
        while search.is_open and len(active) < together:
            active.append(search.ask())
        if not active:
            return search
        for attempt in active:
            search.take(attempt, outcomes(attempt, search.folds(attempt), metric))
        active = [attempt for attempt in active if attempt.state == "running"]


def told(search: Search) -> list[tuple[Any, ...]]:
    return [(a.number, a.state, a.config.params, a.values(search.metric)) for a in search.attempts]


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    assert told(searched(25)) == told(searched(25))
    assert told(searched(25)) != told(searched(25, seed=2))
    down, up = searched(25, metric="rmse"), searched(25)
    assert [a.config.params for a in down.attempts] == [a.config.params for a in up.attempts]
    assert [a.state for a in down.attempts] == [a.state for a in up.attempts]


def test_more_trials_go_on_where_fewer_ended() -> None:
    few, many = told(searched(14)), told(searched(30))
    assert [(number, params) for number, _, params, _ in few] == [(n, p) for n, _, p, _ in many[: len(few)]]


def test_what_is_asked_lies_in_the_space_and_gets_better() -> None:
    search = searched(60)
    assert len(search.attempts) == 61
    for attempt in search.attempts[1:]:
        params = attempt.config.params
        assert 1e-3 <= params["alpha"] <= 1e3  # type: ignore[operator]
        assert params["depth"] in range(2, 10)
        assert params["kind"] in ("a", None, [1, 2])
    values = [score(attempt.config.params, 0) for attempt in search.attempts[1:]]
    assert np.mean(values[-20:]) > np.mean(values[:RANDOM]) + 0.1
    assert search.best is not None
    assert score(search.best.config.params, 0) > 0.8


def test_only_what_is_worse_than_the_median_is_dropped() -> None:
    """Each decision again, from the values by fold of what was complete before it."""
    search = searched(40, together=1)
    complete = [search.attempts[0].values("auc")]
    dropped = 0
    for attempt in search.attempts[1:]:
        values = attempt.values("auc")
        at = [rung for rung in rungs(FOLDS) if rung <= len(values)]
        worse = [
            np.mean(values[:rung]) < np.median([np.mean(other[:rung]) for other in complete])
            for rung in at
            if rung < FOLDS and len(complete) >= MEASURED
        ]
        if attempt.state == "pruned":
            dropped += 1
            assert worse[-1]
            assert not any(worse[:-1])
            assert len(values) in rungs(FOLDS)[:-1]
        else:
            assert attempt.state == "complete"
            assert len(values) == FOLDS
            assert not any(worse)
            complete.append(values)
    assert dropped >= 5
    best = max(complete, key=np.mean)
    assert search.best is not None
    assert search.best.values("auc") == best


@given(st.integers(2, 100))
def test_folds_are_measured_in_steps_to_the_last(folds: int) -> None:
    found = rungs(folds)
    assert found[0] == 2
    assert found[-1] == folds
    assert list(found) == sorted(set(found))


@given(st.floats(-9, 9), st.lists(st.floats(-9, 9), max_size=9))
def test_worse_than_the_median_is_hopeless(value: float, others: list[float]) -> None:
    found = is_hopeless(value, others, lower_is_better=False)
    assert found == (len(others) >= MEASURED and value < np.median(others))
    assert found == is_hopeless(-value, [-other for other in others], lower_is_better=True)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (Outcome(error="singular"), "singular"),
        (Outcome({"auc": math.nan}), "it has no auc in fold 0"),
        (Outcome({"accuracy": 1.0}), "it has no auc in fold 0"),
    ],
)
def test_a_model_that_only_fails_is_left_alone(outcome: Outcome, error: str) -> None:
    search = Search(Model(name="ridge"), SPACE, "auc", "binary", [outcome] * FOLDS, 30, 1)
    while search.is_open:
        attempt = search.ask()
        search.take(attempt, [outcome for _ in search.folds(attempt)])
    assert [(a.state, a.error) for a in search.attempts] == [("failed", error)] * HOPELESS
    assert search.best is None


def test_failures_among_others_change_nothing_but_themselves() -> None:
    search = Search(Model(name="ridge"), SPACE, "auc", "binary", [Outcome({"auc": 0.5})] * FOLDS, 20, 1)
    while search.is_open:
        attempt = search.ask()
        while attempt.state == "running":
            folds = search.folds(attempt)
            odd = attempt.number % 2 == 1
            search.take(attempt, [Outcome(error="odd")] * len(folds) if odd else outcomes(attempt, folds))
    states = [attempt.state for attempt in search.attempts]
    assert states.count("failed") == 10
    assert search.best is not None
    assert search.best.number % 2 == 0


def test_of_equal_ones_the_first_is_best() -> None:
    search = Search(Model(name="ridge"), SPACE, "auc", "binary", [Outcome({"auc": 0.5})] * FOLDS, 5, 1)
    while search.is_open:
        attempt = search.ask()
        while attempt.state == "running":
            search.take(attempt, [Outcome({"auc": 0.5}) for _ in search.folds(attempt)])
    assert search.best is search.attempts[0]


def test_the_model_of_the_spec_is_told_where_it_is_a_point_of_the_space() -> None:
    ridge = space_of(Model(name="ridge"), {})
    assert point_of(Model(name="ridge"), ridge, "regression") == {"alpha": 1.0}
    named = {"ridge": {"alpha": Dimension(low=1e-4, high=10.0, log=True)}}
    own = Model(name="ridge", params={"alpha": 3})
    assert point_of(own, space_of(own, named), "regression") == {"alpha": 3.0}
    far = Model(name="ridge", params={"alpha": 30})
    assert point_of(far, space_of(far, named), "regression") is None
    tree = Model(name="decision_tree")
    assert point_of(tree, space_of(tree, {}), "binary") is None
    near = Model(name="k_neighbours")
    space = space_of(near, {"k_neighbours": {"metric": Dimension(choices=("manhattan", "minkowski"))}})
    assert point_of(near, space, "binary") == {"n_neighbors": 5, "weights": 0, "metric": 1}
    search = Search(Model(name="ridge"), ridge, "rmse", "regression", [Outcome({"rmse": 2.0})] * 3, 3, 1)
    assert [(trial.params, trial.value) for trial in search.study.trials] == [({"alpha": 1.0}, 2.0)]


def test_a_space_is_the_catalogues_without_what_is_set_and_with_what_is_said() -> None:
    forest = Model(name="xgboost", label="mine", params={"eta": 0.1, "max_depth": 4})
    assert space_of(forest, {}).keys() == SPACES["xgboost"].keys() - {"learning_rate", "max_depth"}
    overrides = {
        "xgboost": {"max_depth": Dimension(low=3, high=5), "subsample": Dimension(low=0, high=1)},
        "mine": {"subsample": Dimension(low=0.25, high=0.5), "reg_lambda": Dimension(low=1, high=9)},
    }
    space = space_of(forest, overrides)
    assert space["max_depth"] == Dimension(low=3, high=5, log=False)
    assert space["subsample"] == Dimension(low=0.25, high=0.5, log=False)
    assert space["reg_lambda"] == Dimension(low=1.0, high=9.0, log=True)
    assert not space["reg_lambda"].whole
    other = space_of(Model(name="xgboost"), overrides)
    assert other["subsample"] == Dimension(low=0.0, high=1.0, log=False)
    assert "learning_rate" in other
    linear = space_of(Model(name="xgboost", params={"booster": "gblinear"}), {})
    assert linear.keys() == {"n_estimators", "learning_rate", "reg_lambda", "reg_alpha"}
    assert space_of(Model(name="dummy"), {}) == {}


@pytest.mark.parametrize("name", [name for name, space in SPACES.items() if space])
def test_a_models_space_is_one_that_its_library_takes(name: str) -> None:
    """Trained at both ends, but for the number of trees."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(150, 4)).astype(np.float32)
    signal = matrix[:, 0] + 0.5 * rng.normal(size=150)
    tasks: list[Task] = ["binary", "multiclass", "regression"]
    for task in [task for task in tasks if task in CATALOGUE[name].tasks]:
        edges = {"binary": [0.0], "multiclass": [-0.5, 0.5]}.get(task)
        target = signal if edges is None else np.digitize(signal, edges).astype(np.float64)
        classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
        rule = SplitRule.model_construct(task=task, classes=classes)
        for end in (0, -1):
            params = {one: dimension.ends[end] for one, dimension in SPACES[name].items()}
            check_params(Model(name=name, params=params), task)
            params |= {one: 5 for one in ("n_estimators", "iterations") if one in params}
            model, _ = fit_model(Model(name=name, params=params), rule, matrix, target, {}, 1)
            assert np.isfinite(model.margin(matrix)).all()


def job(**sections: Any) -> Job:
    data = {"path": "x.parquet", "target": "y"}
    models = ["xgboost", {"name": "ridge", "label": "line"}, "dummy"]
    return Job.model_validate({"name": "x", "data": data, "models": models, **sections})


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"models": ["xgbost"]}, "tune.models: 'xgbost' is none of the models [xgboost, line, dummy]. Did you mean"),
        ({"models": ["ridge"]}, "tune.models: 'ridge' is none of the models"),
        ({"models": 0}, "it is a list of models, as in [xgboost, ridge], or a number"),
        ({"models": True}, "it is a list of models, as in [xgboost, ridge], or a number"),
        ({"models": []}, "it is a list of models, as in [xgboost, ridge], or a number"),
        ({"models": "xgboost"}, "it is a list of models, as in [xgboost, ridge], or a number"),
        ({"trials": 0}, "greater than or equal to 1"),
        ({"budget": "soon"}, "'soon' is no span of time"),
        ({"space": {"xgbost": {"eta": [0.1, 0.2]}}}, "tune.space: 'xgbost' is none of the models"),
        ({"models": ["line"], "space": {"xgboost": {}}}, "tune.space: 'xgboost' is none of the models [line]"),
        ({"space": {"xgboost": {"eta": [0.1]}}}, "a list is [low, high], two numbers"),
        ({"space": {"xgboost": {"eta": [False, True]}}}, "a list is [low, high], two numbers"),
        ({"space": {"xgboost": {"eta": [0.2, 0.1]}}}, "low is 0.2 and high is 0.1; low must be less"),
        ({"space": {"xgboost": {"eta": {"low": 0.1}}}}, "low and high are needed"),
        ({"space": {"xgboost": {"eta": {"low": 0, "high": 1, "log": True}}}}, "log: true needs a low above 0"),
        ({"space": {"xgboost": {"booster": {"choices": []}}}}, "choices: there are none"),
        ({"space": {"xgboost": {"booster": {"choices": ["dart"], "low": 1}}}}, "choices have no low, high or log"),
        ({"space": {"xgboost": {"eta": {"low": 0.1, "hihg": 1}}}}, "hihg"),
    ],
)
def test_wrong_sections_are_refused(tune: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        job(tune=tune)
    assert message in str(caught.value)


def test_a_tuned_model_needs_a_name_of_its_own_and_a_job_with_models() -> None:
    with pytest.raises(ValidationError, match="'ridge-tuned' is what the tuned 'ridge' is called"):
        job(models=["ridge", {"name": "lda", "label": "ridge-tuned"}], tune={})
    with pytest.raises(ValidationError, match="there are no models to tune"):
        job(models=[], tune={})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"models": ["dummy", "xgboost"], "tune": {"models": ["dummy"]}}, "'dummy' has nothing to tune"),
        ({"models": ["dummy"], "tune": {}}, r"none of the models \[dummy\] has something to tune"),
        (
            {"tune": {"space": {"xgboost": {"max_dept": [3, 4]}}}},
            "tune.space: parameter 'max_dept' of xgboost is not known to it. Allowed: .* Did you mean 'max_depth'?",
        ),
        ({"tune": {"space": {"xgboost": {"n_jobs": [1, 2]}}}}, "tune.space: parameter 'n_jobs' of xgboost is set by"),
        (
            {"tune": {"space": {"xgboost": {"booster": {"choices": ["dart", "gbtre"]}}}}},
            "booster of xgboost is 'gbtre'",
        ),
        ({"tune": {"space": {"xgboost": {"max_depth": [-3, 4]}}}}, "XGBoost says: .*max_depth"),
        ({"tune": {"space": {"xgboost": {"max_depth": [2.5, 4]}}}}, "is a whole number, and its bounds are 2.5 and 4"),
        (
            {"tune": {"space": {"xgboost": {"eta": [0.1, 0.2], "learning_rate": [0.1, 0.2]}}}},
            "eta and learning_rate of 'xgboost' are the same parameter",
        ),
        (
            {
                "models": [{"name": "xgboost", "params": {"eta": 0.1}}],
                "tune": {"space": {"xgboost": {"learning_rate": [0.1, 0.2]}}},
            },
            "learning_rate and eta of 'xgboost' are the same parameter",
        ),
        ({"tune": {"space": {"line": {"alpha": [-1.0, 4.0]}}}}, "tune.space: alpha of ridge is -1.0; it should be"),
        ({"metric": "log_loss", "tune": {"models": ["line"]}}, "'line' gives no probabilities"),
    ],
)
def test_what_a_model_cannot_be_tuned_by_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        check_tuning(job(**sections), "binary")


def test_a_preset_may_lack_a_model_that_is_named() -> None:
    named = job(models="all", tune={"models": ["lasso"]})
    check_tuning(named, None)
    check_tuning(named, "regression")
    with pytest.raises(RequestError, match="tune.models: 'lasso' is none of the models of this task"):
        check_tuning(named, "binary")


def test_what_is_short_means_the_same() -> None:
    found = Tune.model_validate({"space": {"ridge": {"alpha": [1, 10]}}, "budget": "2min"})
    assert found.space["ridge"]["alpha"] == Dimension(low=1, high=10)
    assert seconds_of(found.budget) == 120.0
    assert Tune.model_validate(found.model_dump(mode="json")) == found
    assert job(tune={}).compared == job(compare={}).compared


def test_the_last_comparison_decides() -> None:
    assert deciding(["read", "train:xgboost"]) is None
    assert deciding({"compare": 1}) == "compare"
    assert deciding({"tune": 1, "compare": 1}) == "tune"
