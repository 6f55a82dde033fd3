"""Ensembles of predictions out of folds: selection, weights and meta models, and that nothing leaks into their rows."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn import metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from treadle.engine.artifacts import Comparison, Folds
from treadle.engine.comparison import compared, with_row
from treadle.engine.job import Job, Model
from treadle.engine.leaderboard import p_value
from treadle.engine.models.base import decided, load_model, save_model
from treadle.engine.models.combination import CLIP, Average, Stacked
from treadle.engine.models.ensemble import EnsembleModel, evaluations_of
from treadle.engine.models.linear import LinearModel
from treadle.engine.models.neighbours import NeighboursModel
from treadle.engine.models.sampled import draw_background
from treadle.engine.sections.ensemble import ENSEMBLE, Ensemble
from treadle.engine.store import Store
from treadle.engine.trials.ensembling import TINY, Library, Measure, blend, combine, combine_without, greedy, stack
from treadle.engine.trials.mixture import combination_of, mixture_of
from treadle.engine.trials.outcome import Outcome
from treadle.errors import DataError, StorageError

CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
METRICS = {"binary": ("auc", "log_loss", "accuracy"), "multiclass": ("log_loss", "accuracy"), "regression": ("rmse",)}
TASKS = list(CLASSES)


def library(task: Any, seed: int, models: int = 4, rows: int = 60, folds: int = 3) -> Library:
    """Models that each know a part of the target, and make noise of their own."""
    rng = np.random.default_rng(seed)
    scores: list[list[np.ndarray]] = [[] for _ in range(models)]
    targets = []
    for _ in range(folds):
        hidden = rng.normal(size=(rows, 3))
        if task == "multiclass":
            target = hidden.argmax(axis=1).astype(float)
        else:
            target = hidden[:, 0] * 10 + 5 if task == "regression" else (hidden[:, 0] > 0.3).astype(float)
        for model in range(models):
            seen = hidden + rng.normal(size=hidden.shape) * (0.5 + 0.5 * model)
            if task == "multiclass":
                odds = np.exp(2 * seen)
                scores[model].append(odds / odds.sum(axis=1, keepdims=True))
            elif task == "binary":
                scores[model].append(1 / (1 + np.exp(-2 * seen[:, 0])))
            else:
                scores[model].append(seen[:, 0] * 10 + 5)
        targets.append(target)
    return Library(task, CLASSES[task], tuple(map(tuple, scores)), tuple(targets))


def by_folds(ensemble: Ensemble, given_: Library, measure: Measure) -> list[np.ndarray]:
    """Scores of the rows of each fold, by what was made without it."""
    made = [combine_without(ensemble, given_, measure, fold) for fold in range(len(given_.targets))]
    return [own.scores(own.margin(given_.of_fold(fold))) for fold, own in enumerate(made)]


def measured(metric: str, task: str, score: np.ndarray, target: np.ndarray) -> float:
    """By scikit-learn; more is better."""
    if metric == "auc":
        return float(metrics.roc_auc_score(target, score))
    if metric == "rmse":
        return -float(metrics.root_mean_squared_error(target, score))
    if metric == "log_loss":
        return -float(metrics.log_loss(target, score, labels=range(len(CLASSES[task]))))
    return float(((score.argmax(axis=1) if score.ndim > 1 else score > 0.5) == target).mean())


def selected(given_: Library, metric: str, steps: int) -> list[int]:
    """The slow reference: a list of models that grows by whichever is best to add; the best prefix of it."""

    def worth(chosen: list[int]) -> float:
        return float(
            np.mean(
                [
                    measured(metric, given_.task, sum(given_.scores[m][fold] for m in chosen) / len(chosen), target)
                    for fold, target in enumerate(given_.targets)
                ]
            )
        )

    order = sorted(range(len(given_.scores)), key=lambda m: -worth([m]))
    chosen = [order[0]]
    for _ in range(steps - 1):
        worths = {m: worth([*chosen, m]) for m in order}
        best = max(worths.values())
        chosen.append(next(m for m in order if worths[m] >= best - 1e-12))
    prefixes = [chosen[:size] for size in range(1, steps + 1)]
    best = max(map(worth, prefixes))
    return next(prefix for prefix in prefixes if worth(prefix) >= best - 1e-12)


@pytest.mark.parametrize(("task", "metric"), [(task, metric) for task in TASKS for metric in METRICS[task]])
@pytest.mark.parametrize("seed", [1, 2])
def test_selection_is_that_of_a_slow_reference(task: Any, metric: str, seed: int) -> None:
    given_ = library(task, seed, rows=41)
    found = greedy(given_, Measure(metric, task, 0.5), 8)
    counts = Counter(selected(given_, metric, 8))
    np.testing.assert_allclose(found / found.sum(), [counts[m] / counts.total() for m in range(len(found))], rtol=1e-12)


def test_of_equal_models_the_first_is_selected_and_no_more_than_helps() -> None:
    one = library("binary", 3, models=1)
    same = Library(one.task, one.classes, one.scores * 3, one.targets)
    np.testing.assert_array_equal(greedy(same, Measure("auc", "binary", 0.5), 25), [1, 0, 0])


def test_of_many_rows_some_are_looked_at_and_of_every_fold_as_many() -> None:
    given_ = library("multiclass", 3, rows=100)
    assert given_.thinned(300) is given_
    thin = given_.thinned(299)
    assert [len(target) for target in thin.targets] == [50, 50, 50]
    np.testing.assert_array_equal(thin.scores[2][1], given_.scores[2][1][::2])
    np.testing.assert_array_equal(thin.targets[2], given_.targets[2][::2])


def test_a_metric_that_is_not_a_number_chooses_nobody_over_others() -> None:
    """AUC of rows of one class."""
    given_ = library("binary", 3)
    one_class = Library("binary", given_.classes, given_.scores, tuple(np.ones_like(t) for t in given_.targets))
    np.testing.assert_array_equal(greedy(one_class, Measure("auc", "binary", 0.5), 5), [1, 0, 0, 0])


def columns_of(given_: Library) -> np.ndarray:
    """(rows, models): the probability of the class that a row has, or the residual."""
    if given_.task == "regression":
        return np.stack(given_.whole, axis=1) - given_.target[:, None]
    codes = given_.target.astype(int)
    whole = [np.stack([1 - s, s], axis=1) if given_.task == "binary" else s for s in given_.whole]
    return np.stack([score[np.arange(len(codes)), codes] for score in whole], axis=1)


def loss(given_: Library, weights: np.ndarray) -> float:
    """What `blend` is to make as small as can be, by scikit-learn."""
    score = sum(w * s for w, s in zip(weights, given_.whole, strict=True))
    if given_.task == "regression":
        return float(metrics.mean_squared_error(given_.target, score))
    return -measured("log_loss", given_.task, np.asarray(score), given_.target)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_no_weights_on_a_grid_have_less_loss_than_a_blend(task: str, seed: int) -> None:
    given_ = library(task, seed, models=3, rows=50)
    found = blend(given_)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert (found >= 0).all()
    assert not ((found > 0) & (found < TINY)).any()
    grid = np.array([[a, b, 100 - a - b] for a in range(101) for b in range(101 - a)]) / 100
    mixed = columns_of(given_) @ grid.T
    losses = (mixed**2 if task == "regression" else -np.log(mixed)).mean(axis=0)
    np.testing.assert_allclose(losses[777], loss(given_, grid[777]))
    assert loss(given_, found) <= losses.min() * (1 + 1e-7)


def least_squares(residuals: np.ndarray) -> float:
    """The slow reference: the least sum of squares over all sets of models that may have weight."""
    products = residuals.T @ residuals
    found = []
    for size in range(1, len(products) + 1):
        for places in itertools.combinations(range(len(products)), size):
            inside = products[np.ix_(places, places)]
            system = np.block([[inside, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            weights = np.linalg.solve(system, np.append(np.zeros(size), 1.0))[:size]
            if (weights >= 0).all():
                found.append(float(weights @ inside @ weights))
    return min(found)


@pytest.mark.parametrize("times", [1, 30, 1000, 1e5])
@pytest.mark.parametrize("seed", range(3))
def test_a_blend_of_numbers_is_exact_however_much_models_differ(seed: int, times: float) -> None:
    """A baseline beside a model that is nearly right errs a thousand times as much."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=200)
    spreads = 0.01 * times ** np.linspace(0, 1, 5)
    shared = rng.normal(size=200) * 0.005
    scores = [target + shared + spread * rng.normal(size=200) for spread in spreads]
    found = blend(Library("regression", (), tuple((score,) for score in scores), (target,)))
    residuals = np.stack(scores, axis=1) - target[:, None]
    inside = residuals[:, found > 0]
    assert ((inside @ found[found > 0]) ** 2).sum() == pytest.approx(least_squares(inside), rel=1e-9)
    # What is left out had next to no weight, and leaves next to nothing behind.
    assert ((residuals @ found) ** 2).sum() <= least_squares(residuals) * 1.05


def test_of_the_same_values_twice_a_blend_has_the_model_once() -> None:
    given_ = library("regression", 7, models=3)
    twice = Library("regression", (), (given_.scores[0], *given_.scores), given_.targets)
    found = blend(twice)
    assert 0 in (found[0], found[1])
    assert loss(twice, found) == pytest.approx(loss(given_, blend(given_)), rel=1e-12)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_weights_of_probabilities_are_where_expectation_maximisation_ends(task: str) -> None:
    """Proportions of a mixture with known parts have the same optimum, and an algorithm of their own."""
    given_ = library(task, 5, models=5, rows=60)
    p = columns_of(given_)
    weights = np.full(5, 1 / 5)
    for _ in range(20_000):
        weights = weights * (p / (p @ weights)[:, None]).mean(axis=0)
    assert loss(given_, blend(given_)) <= loss(given_, weights) * (1 + 1e-8)
    np.testing.assert_allclose(blend(given_), weights, atol=2e-4)


def test_weights_of_values_do_not_depend_on_their_unit() -> None:
    given_ = library("regression", 7)
    for unit in (1e-9, 1e9):
        scaled = tuple(tuple(s * unit for s in own) for own in given_.scores)
        other = Library("regression", (), scaled, tuple(t * unit for t in given_.targets))
        np.testing.assert_allclose(blend(other), blend(given_), atol=1e-6)
        np.testing.assert_allclose(stack(other).coefficients, stack(given_).coefficients, rtol=1e-5)


def test_a_model_that_is_never_wrong_has_all_the_weight() -> None:
    given_ = library("regression", 7)
    perfect = Library("regression", (), (given_.targets, *given_.scores), given_.targets)
    np.testing.assert_array_equal(blend(perfect), [1, 0, 0, 0, 0])


def log_odds(scores: list[np.ndarray]) -> np.ndarray:
    p = np.clip(np.column_stack(scores), CLIP, 1 - CLIP)
    return np.log(p / (1 - p))


@pytest.mark.parametrize("task", TASKS)
def test_a_stack_is_the_regression_of_scikit_learn_fold_by_fold(task: Any) -> None:
    given_ = library(task, 11, rows=120)
    ensemble = Ensemble(kind="stack")
    measure = Measure(METRICS[task][0], task, 0.5)
    found = by_folds(ensemble, given_, measure)
    for fold in range(3):
        others = [f for f in range(3) if f != fold]
        target = np.concatenate([given_.targets[f] for f in others])
        inside = [np.concatenate([own[f] for f in others]) for own in given_.scores]
        outside = [own[fold] for own in given_.scores]
        if task == "regression":
            # The penalty is in units of the target's variance.
            oracle: Any = Ridge(alpha=target.var()).fit(np.column_stack(inside), target)
            expected = oracle.predict(np.column_stack(outside))
        else:
            oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(log_odds(inside), target)
            expected = oracle.predict_proba(log_odds(outside))
            expected = expected[:, 1] if task == "binary" else expected
        np.testing.assert_allclose(found[fold], expected, rtol=2e-4, atol=2e-5)
    whole = combine(ensemble, given_, measure)
    assert isinstance(whole, Stacked)
    assert whole.meta.features == len(given_.scores) * (3 if task == "multiclass" else 1)


def test_a_stack_without_rows_of_a_class_says_so() -> None:
    given_ = library("binary", 1)
    with pytest.raises(DataError, match="no training row is of class 'yes'"):
        stack(Library("binary", given_.classes, given_.scores, tuple(np.zeros_like(t) for t in given_.targets)))


@pytest.mark.parametrize("kind", ["greedy", "blend", "stack"])
def test_a_target_of_chance_is_not_learnt(kind: Any) -> None:
    """The best combination of thirty models that guess looks good on the rows it was made of, and on no others."""
    by_fold, on_same = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        folds, rows, models = 4, 50, 30
        scores = tuple(tuple(rng.random(rows) for _ in range(folds)) for _ in range(models))
        targets = tuple(rng.integers(0, 2, rows).astype(float) for _ in range(folds))
        given_ = Library("binary", CLASSES["binary"], scores, targets)
        ensemble = Ensemble(kind=kind, size=8 if kind == "greedy" else None)
        measure = Measure("auc", "binary", 0.5)
        found = by_folds(ensemble, given_, measure)
        by_fold += [metrics.roc_auc_score(t, score) for t, score in zip(targets, found, strict=True)]
        combination = combine(ensemble, given_, measure)
        on_same += [metrics.roc_auc_score(t, combination.margin(given_.of_fold(f))) for f, t in enumerate(targets)]
    # 16 folds, each with a standard deviation of about 0.08.
    assert abs(np.mean(by_fold) - 0.5) < 0.06
    assert np.mean(on_same) > 0.6


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(TASKS), st.sampled_from(["greedy", "blend", "stack"]))
def test_a_fold_has_no_part_in_what_predicts_it(seed: int, task: Any, kind: Any) -> None:
    """Other targets of a fold's rows change nothing of what is made of these rows."""
    given_ = library(task, seed, models=3, rows=30)
    ensemble = Ensemble(kind=kind, size=5 if kind == "greedy" else None)
    measure = Measure(METRICS[task][0], task, 0.5)
    fold = seed % 3
    turned = list(given_.targets)
    turned[fold] = np.roll(turned[fold][::-1], 1)
    other = Library(task, given_.classes, given_.scores, tuple(turned))
    one, two = (by_folds(ensemble, some, measure)[fold] for some in (given_, other))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["greedy", "blend", "stack"])
def test_a_mixture_comes_back_as_what_predicts(task: Any, kind: Any) -> None:
    given_ = library(task, 13)
    titles = ["a", "b", "c", "d"]
    combination = combine(Ensemble(kind=kind), given_, Measure(METRICS[task][0], task, 0.5))
    mixture = mixture_of(kind, titles, combination)
    back = combination_of(mixture, task)
    inside = [given_.whole[titles.index(title)] for title in mixture.members]
    expected = combination.margin(given_.whole)
    np.testing.assert_allclose(back.margin(inside), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(back.scores(back.margin(inside)), combination.scores(expected), rtol=1e-12)
    if isinstance(back, Average):
        assert list(mixture.weights) == sorted(mixture.weights, reverse=True)
        assert sum(mixture.weights) == pytest.approx(1)


FOLDS = Folds(kind="random", seed=1, column=None, rows=(5, 5, 5))


def three(*values: float) -> list[Outcome]:
    return [Outcome({"auc": value}, rows=10) for value in values]


def board(*rows: list[Outcome]) -> Comparison:
    return compared("auc", FOLDS, [Model(name=n) for n, _ in zip(("lda", "qda"), rows, strict=True)], rows)


def test_the_row_of_an_ensemble_is_ranked_among_the_others() -> None:
    before = board(three(0.7, 0.8, 0.9), three(0.5, 0.6, 0.8))
    found = with_row(before, ENSEMBLE, three(0.8, 0.8, 0.95), FOLDS)
    assert [row["model"] for row in found.rows] == [ENSEMBLE, "lda", "qda"]
    assert (found.best, len(found.folds)) == (ENSEMBLE, 9)
    assert found.rows[0]["p_value"] is None
    assert found.rows[1]["p_value"] == pytest.approx(p_value([0.7, 0.8, 0.9], [0.8, 0.8, 0.95], 0.5))
    # One that is as good as its best member is not chosen over it.
    assert with_row(before, ENSEMBLE, three(0.7, 0.8, 0.9), FOLDS).best == "lda"
    failed = with_row(before, ENSEMBLE, [Outcome(error="no class")] * 3, FOLDS)
    assert (failed.best, failed.rows[-1]["error"]) == ("lda", "no class")


SPECS: list[tuple[dict[str, Any], str]] = [
    ({"ensemble": {"kind": "greedi"}}, "'greedy', 'blend' or 'stack'"),
    ({"ensemble": {"kind": "stack", "size": 5}}, "size is how many steps kind: greedy takes, and the kind is stack"),
    ({"ensemble": {"size": 0}}, "greater than or equal to 1"),
    ({"ensemble": {"models": ["lda"]}}, "at least 2 items"),
    ({"ensemble": {"models": ["lda", "lda"]}}, "models: 'lda' is there twice"),
    ({"ensemble": {"models": ["lda", "qad"]}}, "compared: [lda, qda]. Did you mean 'qda'?"),
    ({"models": ["lda"]}, "made of two models or more, and models names lda alone"),
    ({"models": ["lda", {"name": "qda", "label": "ensemble"}]}, "the label 'ensemble' is that of the ensemble's own"),
    ({"models": []}, "there are no models to make it of"),
    ({"models": "fast", "ensemble": {"models": ["lda", "xgbost"]}}, "Did you mean 'xgboost'?"),
]


@pytest.mark.parametrize(("changes", "words"), SPECS)
def test_a_section_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    base = {"name": "a", "data": {"path": "x", "target": "y"}, "models": ["lda", "qda"], "ensemble": {}}
    with pytest.raises(ValidationError) as caught:
        Job.model_validate({**base, **changes})
    assert words in str(caught.value)


def test_an_ensemble_needs_folds_and_has_them() -> None:
    base = {"name": "a", "data": {"path": "x", "target": "y"}, "models": ["lda", "qda"]}
    assert Job.model_validate(base).compared is None
    found = Job.model_validate({**base, "ensemble": {}})
    assert found.compared is not None
    assert found.compared.folds == 10
    assert found.ensemble is not None
    assert (found.ensemble.kind, found.ensemble.steps) == ("greedy", 25)
    Job.model_validate(found.model_dump(mode="json", by_alias=True))


def linear(rng: np.random.Generator, features: int) -> LinearModel:
    return LinearModel("binary", "logistic", rng.normal(size=features) / 4, rng.normal(size=1), np.zeros(features))


@pytest.mark.parametrize("features", [3, 12])
def test_contributions_of_a_stack_of_linear_models_are_those_of_the_linear_model_that_it_is(features: int) -> None:
    """Enumerated or sampled, against the background rows: of a linear margin every order gives the same."""
    rng = np.random.default_rng(features)
    members = [linear(rng, features) for _ in range(2)]
    meta = LinearModel("binary", "logistic", np.array([[1.5, -0.5]]), np.array([0.2]), np.zeros(2))
    matrix = rng.normal(size=(40, features)).astype(np.float32)
    with pytest.raises(ValueError, match="needs background rows"):
        EnsembleModel("binary", "ab", members, Stacked(meta))
    background = draw_background(matrix, evaluations_of(members), 1)
    model = EnsembleModel("binary", "ab", members, Stacked(meta), background)
    rows = rng.normal(size=(5, features)).astype(np.float32)
    coefficients = 1.5 * members[0].coefficients[0] - 0.5 * members[1].coefficients[0]
    found = model.contributions(rows)
    expected = coefficients * (rows - background.rows.mean(axis=0, dtype=float))
    np.testing.assert_allclose(found[:, :-1], expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), model.margin(rows), rtol=1e-9)
    how = "exact over all coalitions" if features == 3 else "permutations and their reverses; mean standard error"
    assert model.method.startswith("of the linear model of a, b: Shapley values, ")
    assert how in model.method


def test_an_average_of_log_odds_is_sampled_and_says_how_well() -> None:
    """Probabilities of linear models do not add up by feature."""
    rng = np.random.default_rng(2)
    members = [linear(rng, 12) for _ in range(2)]
    matrix = rng.normal(size=(60, 12)).astype(np.float32)
    model = EnsembleModel(
        "binary", "ab", members, Average(np.array([0.4, 0.6])), draw_background(matrix, evaluations_of(members), 1)
    )
    score = 0.4 * members[0].scores(members[0].margin(matrix)) + 0.6 * members[1].scores(members[1].margin(matrix))
    np.testing.assert_allclose(model.margin(matrix), score, rtol=1e-12)
    np.testing.assert_array_equal(model.scores(model.margin(matrix)), model.margin(matrix))
    np.testing.assert_allclose(model.contributions(matrix[:5]).sum(axis=1), score[:5], rtol=1e-9)
    assert 0 < model.error < 0.01
    assert f"mean standard error {model.error:.2g}" in model.method


def test_members_that_are_sampled_tell_the_error_of_their_sum(tmp_path: Path) -> None:
    """Probabilities of neighbours add up with those of others; the errors of both are added by weight."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(50, 11)).astype(np.float32)
    target = (matrix[:, 0] > 0).astype(int)
    near = [
        NeighboursModel.of("binary", KNeighborsClassifier(k).fit(matrix, target), matrix, target, 1) for k in (3, 7)
    ]
    model = EnsembleModel("binary", ("near", "far"), near, Average(np.array([0.25, 0.75])))
    rows = matrix[:3]
    expected = 0.25 * near[0].contributions(rows) + 0.75 * near[1].contributions(rows)
    np.testing.assert_allclose(model.contributions(rows), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(model.contributions(rows).sum(axis=1), model.margin(rows), rtol=1e-9, atol=1e-12)
    most = 0.25 * near[0].error + 0.75 * near[1].error
    assert model.method.endswith(f"; mean standard error {most:.2g} at most")
    store = Store(str(tmp_path))
    save_model(decided(model, None, 0.4), store, "m")
    again = load_model(store, "m")
    assert (again.method, again.threshold) == (model.method, 0.4)
    np.testing.assert_array_equal(again.contributions(rows), model.contributions(rows))
    save_model(again, store, "n")
    (tmp_path / "n" / "model.1.arrow").write_bytes(b"other")
    with pytest.raises(StorageError, match="model.1.arrow"):
        load_model(store, "n")
