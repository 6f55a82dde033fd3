"""Calibration against scikit-learn's and against definitions; models that carry it, and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV, _SigmoidCalibration
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from treadle.engine.artifacts import SplitRule
from treadle.engine.blocks import Block
from treadle.engine.evaluate import _cut, measure, merge
from treadle.engine.models.base import Model, decided, load_model, save_model
from treadle.engine.models.calibration import (
    Calibration,
    Isotonic,
    Sigmoid,
    fit_calibration,
    fit_isotonic,
    fit_sigmoid,
    logistic,
)
from treadle.engine.models.constant import ConstantModel
from treadle.engine.models.forest import ForestModel
from treadle.engine.models.linear import LinearModel
from treadle.engine.scoring import Scoring
from treadle.engine.store import Store
from treadle.errors import DataError, StorageError
from treadle.kernels.metrics import binary_metrics, score_table

Numbers = NDArray[np.float64]
ROWS = 600


def margins_of(kind: str) -> tuple[Numbers, NDArray[np.bool_]]:
    rng = np.random.default_rng(len(kind))
    x = rng.normal(size=ROWS)
    labels = rng.random(ROWS) < logistic(2 * x - 0.5)
    return {
        "log-odds": (3 * x, labels),
        "probabilities": (logistic(x), labels),
        "large": (4000 * x + 9000, labels),
        "narrow": (5.0 + 1e-4 * x, labels),
        "reversed": (-x, labels),
        "rare": (x, rng.random(ROWS) < 0.01),
        "separable": (x, x > 0.3),
        "few values": (np.round(x), labels),
        "no information": (x, rng.random(ROWS) < 0.3),
    }[kind]


KINDS = [
    "log-odds", "probabilities", "large", "narrow", "reversed", "rare", "separable", "few values", "no information",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_sigmoid_is_scikit_learns(kind: str) -> None:
    margin, labels = margins_of(kind)
    found = fit_sigmoid(margin, labels)
    wanted = _SigmoidCalibration().fit(margin, labels.astype(float)).predict(margin)
    probability = found.apply(margin, margin)
    np.testing.assert_allclose(probability, wanted, rtol=0, atol=1e-6)
    # At the optimum the targets' sum, and their product with the margin, are those of the probabilities.
    residual = probability - platts(labels)
    assert abs(residual.sum()) < 1e-8
    assert abs(residual @ (margin - margin.mean())) < 1e-8 * np.abs(margin - margin.mean()).sum()


def platts(labels: NDArray[np.bool_]) -> Numbers:
    ones, zeros = labels.sum(), (~labels).sum()
    return np.where(labels, (ones + 1) / (ones + 2), 1 / (zeros + 2))


# Squares of smaller numbers would be none.
MARGIN = st.floats(-1e6, 1e6).map(lambda value: value if abs(value) > 1e-100 else 0.0)
LABELLED = st.lists(st.tuples(MARGIN, st.booleans()), min_size=1, max_size=20)


@given(LABELLED)
@example([(0.0, True)])
@example([(5.0, True), (5.0, False), (5.0, True)])
@example([(1e6, True), (1e6 - 2**-30, False), (1e6 + 2**-32, True)])
@example([(1e6, True), (-1e6, True), (0.0, False)])
@example([(1e6, False), (1e-6, True), (2e-6, False), (3e-6, True)])
@settings(max_examples=150)
def test_the_sigmoid_is_at_its_optimum(rows: list[tuple[float, bool]]) -> None:
    margin, labels = np.array([m for m, _ in rows]), np.array([label for _, label in rows])
    found = fit_sigmoid(margin, labels)
    assert np.isfinite([found.slope, found.center, found.intercept]).all()
    residual = found.apply(margin, margin) - platts(labels)
    assert abs(residual.sum()) < 1e-6
    spread = np.abs(margin - margin.mean()).max()
    assert abs(residual @ (margin - margin.mean())) <= 1e-6 * spread


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=20))
@settings(max_examples=100)
def test_the_isotonic_curve_is_the_one_of_the_definition(rows: list[tuple[int, bool]]) -> None:
    score, labels = np.array([s / 12 for s, _ in rows]), np.array([label for _, label in rows])
    found = fit_isotonic(score, labels)
    distinct = np.unique(score)
    sums = np.array([labels[score == s].sum() for s in distinct], dtype=float)
    counts = np.array([(score == s).sum() for s in distinct], dtype=float)
    # The max-min formula: Barlow and others, "Statistical inference under order restrictions" (1972).
    for i, s in enumerate(distinct):
        means = [[sums[a : b + 1].sum() / counts[a : b + 1].sum() for b in range(i, len(sums))] for a in range(i + 1)]
        wanted = max(min(row) for row in means)
        assert found.apply(np.array([s]), np.array([s]))[0] == pytest.approx(wanted, abs=1e-12)
    ends = found.apply(np.zeros(2), np.array([-3.0, 4.0]))
    np.testing.assert_allclose(ends, found.apply(np.zeros(2), distinct[[0, -1]]), atol=1e-15)


def test_between_knots_the_isotonic_curve_is_scikit_learns() -> None:
    margin, labels = margins_of("log-odds")
    score, new = logistic(margin), np.linspace(-0.1, 1.1, 1000)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(score, labels).predict(new)
    found = fit_isotonic(score, labels)
    np.testing.assert_allclose(found.apply(new, new), wanted, rtol=0, atol=1e-12)
    assert len(found.scores) < 80


def flowers() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(ROWS, 4)).astype(np.float32)
    return matrix, (matrix[:, 0] + rng.normal(size=ROWS) > 0).astype(int) + (matrix[:, 1] > 0.7)


@pytest.mark.parametrize("kind", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("several", [False, True])
def test_whole_models_are_calibrated_as_by_scikit_learn(kind: Any, several: bool) -> None:
    matrix, target = flowers()
    target = target if several else (target > 0).astype(np.int64)
    half = ROWS // 2
    forest = RandomForestClassifier(20, max_depth=4, random_state=0).fit(matrix[:half], target[:half])
    theirs = CalibratedClassifierCV(FrozenEstimator(forest), method=kind).fit(matrix[half:], target[half:])
    model = ForestModel.of("multiclass" if several else "binary", forest)
    margin = model.margin(matrix[half:])
    calibration = fit_calibration(kind, margin, model.scores(margin), target[half:])
    calibrated = decided(model, calibration)
    found, wanted = calibrated.scores(model.margin(matrix)), theirs.predict_proba(matrix)
    np.testing.assert_allclose(found, wanted if several else wanted[:, 1], rtol=0, atol=1e-6)
    if several:
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
        assert (calibrated.classes(found) == found.argmax(axis=1)).all()
    alone = [calibrated.scores(margin[i : i + 1])[0] for i in range(0, half, 7)]
    np.testing.assert_array_equal(np.array(alone), calibrated.scores(margin)[::7])
    np.testing.assert_array_equal(calibrated.margin(matrix), model.margin(matrix))
    np.testing.assert_array_equal(calibrated.contributions(matrix[:9]), model.contributions(matrix[:9]))


def test_one_against_the_rest_is_scikit_learns_for_margins() -> None:
    matrix, target = flowers()
    # In float64, or scikit-learn would compute decisions and their sigmoid in float32.
    exact = matrix.astype(np.float64)
    linear = LogisticRegression().fit(exact, target)
    theirs = CalibratedClassifierCV(FrozenEstimator(linear), method="sigmoid").fit(exact, target)
    model = LinearModel("multiclass", "softmax", linear.coef_, linear.intercept_, matrix.mean(axis=0))
    margin = model.margin(matrix)
    calibrated = decided(model, fit_calibration("sigmoid", margin, model.scores(margin), target))
    np.testing.assert_allclose(calibrated.scores(margin), theirs.predict_proba(exact), rtol=0, atol=1e-6)


def test_a_row_that_no_class_claims_gets_all_alike() -> None:
    step = Isotonic(np.array([0.5, 0.6]), np.array([0.0, 1.0]))
    score = np.array([[0.2, 0.3, 0.5], [0.2, 0.9, 0.55]])
    found = Calibration("isotonic", (step, step, step)).apply(score, score)
    np.testing.assert_allclose(found, [[1 / 3, 1 / 3, 1 / 3], [0, 1 / 1.5, 0.5 / 1.5]], atol=1e-12)


@pytest.mark.parametrize("bad", [np.array([0.1, np.nan]), np.array([np.inf, 0.3]), np.empty(0)])
def test_what_is_not_finite_calibrates_nothing(bad: Numbers) -> None:
    labels = np.arange(len(bad))
    said = "are not finite, the first is" if len(bad) else "there are no out-of-fold"
    for fit in (fit_sigmoid, fit_isotonic):
        with pytest.raises(DataError, match=said):
            fit(bad, labels)


SVM = LinearModel("binary", "decision", np.array([[1.5, -2.0]]), np.array([0.2]), np.zeros(2))
SIGMOID = Calibration("sigmoid", (Sigmoid(1.7, 0.1, -0.3),))
ISOTONIC = Calibration("isotonic", (Isotonic(np.array([0.1, 1 / 3, 0.9]), np.array([0.0, 0.2, 1.0])),))


@pytest.mark.parametrize("calibration", [None, SIGMOID, ISOTONIC])
@pytest.mark.parametrize("threshold", [0.5, 0.2, 1 / 3, -1.0])
def test_a_model_has_its_decision_in_its_file(
    tmp_path: Path, calibration: Calibration | None, threshold: float
) -> None:
    store = Store(str(tmp_path))
    model = decided(SVM, calibration, threshold)
    assert (SVM.calibration, SVM.threshold, SVM.has_probabilities) == (None, 0.5, False)
    assert model.has_probabilities == (calibration is not None)
    save_model(model, store, "m")
    again = load_model(store, "m")
    assert again.threshold == threshold
    assert (again.calibration is None) == (calibration is None)
    if calibration is not None and again.calibration is not None:
        assert again.calibration.document() == calibration.document()
    document = store.read_json("m/model.json")
    assert ("calibration" in document, "threshold" in document) == (calibration is not None, threshold != 0.5)
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    scores = again.scores(again.margin(rows))
    np.testing.assert_array_equal(scores, model.scores(model.margin(rows)))
    np.testing.assert_array_equal(again.classes(scores), scores > threshold)
    assert threshold != -1.0 or again.classes(scores).all()
    assert len(again.scores(again.margin(rows[:0]))) == 0


def damaged(change: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(ISOTONIC.document()))
    change(document)
    return document


@pytest.mark.parametrize(
    "section",
    [
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"calibration": {"kind": "isotonic"}},
        {"calibration": {**ISOTONIC.document(), "kind": "platt"}},
        {"calibration": {"kind": "sigmoid", "curves": [{"slope": 1.0}]}},
        {"calibration": {"kind": "sigmoid", "curves": [{"slope": float("inf"), "center": 0.0, "intercept": 0.0}]}},
        {"calibration": damaged(lambda d: d["curves"].append(d["curves"][0]))},
        {"calibration": damaged(lambda d: d["curves"].clear())},
        {"calibration": damaged(lambda d: d["curves"][0]["scores"].pop())},
        {"calibration": damaged(lambda d: d["curves"][0]["scores"].reverse())},
        {"calibration": damaged(lambda d: d["curves"][0]["probabilities"].reverse())},
        {"calibration": damaged(lambda d: d["curves"][0].update(probabilities=[0.0, 0.2, 1.5]))},
    ],
    ids=str,
)
def test_a_damaged_decision_is_refused(tmp_path: Path, section: dict[str, Any]) -> None:
    store = Store(str(tmp_path))
    save_model(SVM, store, "m")
    (tmp_path / "m/model.json").write_text(json.dumps({**store.read_json("m/model.json"), **section}))
    with pytest.raises(StorageError, match="is no model that this Treadle reads"):
        load_model(store, "m")


def test_numbers_are_not_decided() -> None:
    mean = ConstantModel("regression", 2, np.array([3.0]))
    assert decided(mean, None).scores(np.array([4.0])) == 4.0
    with pytest.raises(ValueError, match="is not for this regression model"):
        decided(mean, SIGMOID)
    with pytest.raises(ValueError, match="is for two classes"):
        decided(mean, None, 0.3)
    shares = ConstantModel("multiclass", 2, np.array([0.2, 0.3, 0.5]))
    with pytest.raises(ValueError, match="a calibration of 1 curves is not for this multiclass model"):
        decided(shares, SIGMOID)


@given(st.lists(st.sampled_from([-3.0, -1e-17, 0.0, 1e-17, 0.4, 2.0]), min_size=1), st.sampled_from([0.01, 0.5, 0.7]))
def test_metrics_of_margins_are_of_the_classes_that_are_predicted(margins: list[float], threshold: float) -> None:
    model: Model = decided(SVM, None, threshold)
    margin, labels = np.array(margins), np.arange(len(margins)) % 2
    table = score_table(margin, labels, probabilities=False)
    part = {"probabilities": False, "threshold": threshold, "table": table}
    predicted = model.classes(model.scores(margin))
    found = binary_metrics(table, _cut(part), probabilities=False)
    assert found["accuracy"] == (predicted == labels).mean()


@pytest.mark.parametrize("calibration", [None, SIGMOID, ISOTONIC])
def test_evaluation_and_predictions_are_of_the_decided_model(tmp_path: Path, calibration: Calibration | None) -> None:
    store = Store(str(tmp_path))
    model = decided(SVM, calibration, 0.3)
    save_model(model, store, "m")
    rng = np.random.default_rng(8)
    matrix, target = rng.normal(size=(300, 2)).astype(np.float32), rng.integers(0, 2, 300).astype(np.float64)
    ids, group = pa.array(np.arange(300)), pa.array(["a", "b", "c"] * 100)
    rule = SplitRule.model_construct(task="binary", classes=("no", "yes"))
    table = Scoring(load_model(store, "m"), ["x", "y"], ["no", "yes"]).predictions(ids, SVM.margin(matrix)).to_pandas()
    assert ((table["class"] == "yes") == (table["score"] > 0.3)).all()
    np.testing.assert_array_equal(table["margin"], SVM.margin(matrix))
    said = (table["class"] == "yes").to_numpy()
    halves = [slice(0, 130), slice(130, 300)]
    blocks = [Block(ids[h], np.ones(len(target[h]), dtype=bool), target[h], matrix[h], {"g": group[h]}) for h in halves]
    found = merge([measure(block, store, {"svm": "m"}, rule, ["g"]) for block in blocks], "binary")["svm"]
    assert found["probabilities"] == (calibration is not None)
    metrics = binary_metrics(found["table"], _cut(found), probabilities=found["probabilities"])
    assert metrics["accuracy"] == (said == target).mean()
    assert ("brier" in metrics) == (calibration is not None)
    if calibration is not None:
        assert metrics["brier"] == pytest.approx(((table["score"] - target) ** 2).mean(), abs=1e-12)
    assert found["groups"]["g"]["b"][:, 1].sum() == said[1::3].sum()
