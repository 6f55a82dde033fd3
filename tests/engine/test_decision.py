"""Thresholds against brute force over all cuts with scikit-learn's metrics; what a spec may ask for; whole models."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, matthews_corrcoef

from treadle.engine.job import Job
from treadle.engine.models.calibration import Sigmoid, fit_calibration
from treadle.engine.models.decision import check_decision, choose_threshold, decide
from treadle.engine.sections.decision import Costs, Decision
from treadle.errors import DataError, RequestError
from treadle.kernels.metrics import binary_metrics, merge_score_tables, score_table

METRICS: dict[str, Any] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "kappa": cohen_kappa_score,
    "mcc": matthews_corrcoef,
}
NEXT = float(np.nextafter(0.3, 1))
GRID = [0.0, 0.1, 0.3, NEXT, 0.5, 0.7, 0.9, 1.0]
ROWS = st.lists(st.tuples(st.sampled_from(GRID), st.booleans()), min_size=2, max_size=14).filter(
    lambda rows: len({label for _, label in rows}) == 2
)
COSTS = st.builds(Costs, false_positive=st.sampled_from([0.1, 1.0, 7.0]), false_negative=st.sampled_from([0.3, 1, 20]))


def worth(by: Any, labels: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    """The greater the better."""
    if isinstance(by, Costs):
        wrong = (predicted & ~labels).sum() * by.false_positive + (~predicted & labels).sum() * by.false_negative
        return -float(wrong) / len(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where one class only is predicted
        return float(METRICS[by](labels, predicted))


def brute_force(by: Any, scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """The best value over all cuts, and of the cuts that have it the threshold nearest to 0.5."""
    distinct = sorted(set(scores.tolist()))
    cuts = []
    for below, upper in zip([None, *distinct], [*distinct, None], strict=True):
        predicted = scores > below if below is not None else np.ones(len(scores), dtype=bool)
        middle = ((0.0 if below is None else below) + (1.0 if upper is None else upper)) / 2
        if upper is not None and middle >= upper:
            middle = below if below is not None else -1.0
        cuts.append((worth(by, labels, predicted), middle))
    best = max(value for value, _ in cuts)
    return best, min((middle for value, middle in cuts if value > best - 1e-12), key=lambda t: abs(t - 0.5))


@given(ROWS, st.sampled_from(sorted(METRICS)) | COSTS)
@example([(0.3, False), (NEXT, True)], "f1")
@example([(0.0, True), (1.0, False)], "f1")
@example([(0.0, True), (0.5, False)], Costs(false_positive=1, false_negative=20))
@example([(1.0, False), (1.0, True), (1.0, False)], "accuracy")
@settings(max_examples=150)
def test_a_threshold_is_the_best_of_all_cuts(rows: list[tuple[float, bool]], by: Any) -> None:
    scores, labels = np.array([score for score, _ in rows]), np.array([label for _, label in rows])
    found = choose_threshold(score_table(scores, labels), by)
    best, wanted = brute_force(by, scores, labels)
    assert worth(by, labels, scores > found) == pytest.approx(best, abs=1e-12)
    assert abs(found - 0.5) == pytest.approx(abs(wanted - 0.5), abs=1e-15)
    assert not np.isin(found, scores) or np.nextafter(found, 2) in scores or found == 1.0


@pytest.mark.parametrize("by", [*METRICS, Costs(false_positive=1, false_negative=5)])
def test_the_metric_at_the_threshold_is_that_of_the_leaderboard(by: Any) -> None:
    rng = np.random.default_rng(4)
    labels = rng.random(3000) < 0.1
    scores = 1 / (1 + np.exp(-rng.normal(-2.5 + labels, 1.0)))
    table = score_table(scores, labels)
    chosen = choose_threshold(table, by)
    parts = [score_table(scores[low : low + 700], labels[low : low + 700]) for low in range(0, 3000, 700)]
    assert choose_threshold(merge_score_tables(parts), by) == chosen
    if isinstance(by, Costs):
        assert worth(by, labels, scores > chosen) > worth(by, labels, scores > 0.5)
    else:
        found = binary_metrics(table, chosen)[by]
        assert found == pytest.approx(worth(by, labels, scores > chosen), abs=1e-12)
        others = rng.choice(scores, 50)
        assert all(found >= binary_metrics(table, float(other))[by] - 1e-12 for other in others)
    assert chosen != 0.5


def test_calibrated_scores_are_cut_near_where_costs_say() -> None:
    rng = np.random.default_rng(7)
    scores = rng.random(200_000)
    labels = rng.random(200_000) < scores
    chosen = choose_threshold(score_table(scores, labels), Costs(false_positive=1, false_negative=4))
    assert chosen == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(("labels", "said"), [([1, 1], "rows of one class only"), ([], "no rows")])
def test_one_class_has_no_threshold(labels: list[int], said: str) -> None:
    with pytest.raises(DataError, match=f"decision.threshold: there are {said} to choose it by"):
        choose_threshold(score_table(np.linspace(0, 1, len(labels)), np.array(labels)), "f1")


def test_a_threshold_is_chosen_among_calibrated_scores() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(500) < 0.2).astype(np.int64)
    margin = rng.normal(size=500) + 2 * labels + 3
    score = 1 / (1 + np.exp(-margin))
    wanted = fit_calibration("sigmoid", margin, score, labels)
    calibration, threshold = decide(
        Decision.model_validate({"calibrate": "sigmoid", "threshold": "f1"}), "binary", margin, score, labels
    )
    assert calibration == wanted
    assert isinstance(wanted.curves[0], Sigmoid)
    assert threshold == choose_threshold(score_table(wanted.apply(margin, score), labels), "f1")
    assert threshold != choose_threshold(score_table(score, labels), "f1")
    assert decide(Decision(threshold=0.3), "binary", margin, score, labels) == (None, 0.3)
    assert decide(Decision(), "binary", margin, score, labels) == (None, 0.5)
    assert decide(Decision(calibrate="sigmoid", threshold=0.3), "binary", margin, score, labels) == (wanted, 0.3)
    assert decide(Decision(calibrate="sigmoid"), "regression", margin, margin, margin) == (None, 0.5)
    margins = rng.normal(size=(500, 3))
    several, threshold = decide(
        Decision(calibrate="isotonic"), "multiclass", margins, margins - margins.min() + 1, rng.integers(0, 3, 500)
    )
    assert several is not None
    assert len(several.curves) == 3
    assert threshold == 0.5


REFUSED: list[tuple[Any, str]] = [
    ({"threshold": "recall"}, "'recall' is not allowed: it is best where every row is predicted as positive. Allowed:"),
    ({"threshold": "precision"}, "best where hardly any row is predicted as positive"),
    ({"threshold": "auc"}, "'auc' is not allowed: it looks at the order of scores alone"),
    ({"threshold": "brier"}, "looks at probabilities and at no threshold"),
    ({"threshold": "acuracy"}, r"Allowed: a number above 0 and below 1, \[accuracy, f1, kappa, mcc\], or costs such as "
                               r"{false_positive: 1, false_negative: 5}. Did you mean 'accuracy'\?"),
    ({"threshold": 1}, "1 is not allowed. Allowed: a number above 0"),
    ({"threshold": 0.0}, "0.0 is not allowed"),
    ({"threshold": float("nan")}, "nan is not allowed"),
    ({"threshold": True}, "true is not allowed"),
    ({"threshold": [0.5]}, "a list is not allowed"),
    ({"threshold": {"false_positive": 1}}, "false_negative\n  Field required"),
    ({"threshold": {"false_positive": 0, "false_negative": 1}}, "greater than 0"),
    ({"threshold": {"false_positive": 1, "false_negative": float("inf")}}, "finite"),
    ({"calibrate": "platt"}, "'sigmoid' or 'isotonic'"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "said"), REFUSED, ids=[str(section) for section, _ in REFUSED])
def test_a_wrong_decision_is_refused_in_words(section: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Decision.model_validate(section)


def job_of(**decision: Any) -> Job:
    return Job.model_validate(
        {"name": "a", "data": {"path": "x", "target": "y"}, "models": ["dummy"], "decision": decision}
    )


@pytest.mark.parametrize(
    ("decision", "task", "said"),
    [
        ({"threshold": 0.3}, "regression", "decision: it is for classes, and the target 'y' asks for numbers"),
        ({"calibrate": "sigmoid"}, "regression", "decision: it is for classes"),
        ({"threshold": 0.5}, "multiclass", "decision.threshold: it is for two classes"),
        ({"calibrate": "sigmoid"}, "multiclass", "decision.calibrate: .* needs folds"),
        ({"threshold": "f1"}, "binary", "decision.threshold: .* needs folds"),
        ({"threshold": {"false_positive": 1, "false_negative": 5}}, None, "decision.threshold: .* folds"),
    ],
)
def test_a_decision_that_does_not_fit_the_job_is_refused(decision: Any, task: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_decision(job_of(**decision), task, has_folds=False)


def test_decisions_that_fit_are_taken() -> None:
    check_decision(job_of(), "regression", has_folds=False)
    check_decision(job_of(threshold=0.3), "binary", has_folds=False)
    check_decision(job_of(threshold="f1", calibrate="isotonic"), "binary", has_folds=True)
    check_decision(job_of(calibrate="isotonic"), "multiclass", has_folds=True)
    check_decision(job_of(threshold="f1").model_copy(update={"models": ()}), "regression", has_folds=False)
