"""Metrics: scikit-learn as the oracle, exact merging as the law, and every refusal."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels import reference
from treadle.errors import DataError
from treadle.kernels.metrics import (
    ClassTable,
    ScoreTable,
    binary_metrics,
    calibration,
    class_table,
    error_table,
    expected_calibration_error,
    group_counts,
    group_rates,
    merge_class_tables,
    merge_error_tables,
    merge_score_tables,
    multiclass_metrics,
    regression_metrics,
    score_table,
)

# Few distinct scores, so that ties, constant scores and the threshold itself all occur.
tied = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0])
# Squares of smaller numbers are no float64; `regression_metrics` says so.
numbers = st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-100)
scored_rows = st.lists(st.tuples(tied | st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
cuts = st.lists(st.integers(0, 40), max_size=4)
class_rows = st.lists(st.tuples(st.integers(0, 2), st.tuples(*[st.integers(0, 4)] * 3)), min_size=1, max_size=30)
errors_rows = st.lists(
    st.tuples(numbers | st.integers(-2, 2).map(float), numbers),
    min_size=1,
    max_size=30,
)


def binary_oracle(scores: NDArray[Any], labels: NDArray[Any], threshold: float) -> dict[str, float]:
    said = (scores > threshold).astype(int)
    return {
        "accuracy": oracle.accuracy_score(labels, said),
        "auc": oracle.roc_auc_score(labels, scores),
        "average_precision": oracle.average_precision_score(labels, scores),
        "recall": oracle.recall_score(labels, said, zero_division=0),
        "precision": oracle.precision_score(labels, said, zero_division=0),
        "f1": oracle.f1_score(labels, said, zero_division=0),
        "kappa": oracle.cohen_kappa_score(labels, said, labels=[0, 1]),
        "mcc": oracle.matthews_corrcoef(labels, said),
        "log_loss": oracle.log_loss(labels, scores, labels=[0, 1]),
        "brier": oracle.brier_score_loss(labels, scores, pos_label=1),
    }


def multiclass_oracle(matrix: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    classes = list(range(matrix.shape[1]))
    said = matrix.argmax(axis=1)
    occurring = [j for j in classes if (labels == j).any()]
    one_hot = np.column_stack([labels == j for j in occurring]).astype(int)
    macro: dict[str, Any] = {"average": "macro", "zero_division": 0}
    return {
        "accuracy": oracle.accuracy_score(labels, said),
        "auc": np.mean([oracle.roc_auc_score(labels == j, matrix[:, j]) for j in occurring]),
        "average_precision": oracle.average_precision_score(one_hot, matrix[:, occurring], average="macro"),
        "recall": oracle.recall_score(labels, said, **macro),
        "precision": oracle.precision_score(labels, said, **macro),
        "f1": oracle.f1_score(labels, said, **macro),
        "kappa": oracle.cohen_kappa_score(labels, said, labels=classes),
        "mcc": oracle.matthews_corrcoef(labels, said),
        "log_loss": oracle.log_loss(labels, matrix, labels=classes),
        "brier": oracle.brier_score_loss(labels, matrix, labels=classes, scale_by_half=False),
    }


def same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name


def content(table: ScoreTable) -> tuple[list[float], list[int], list[int]]:
    kinds = (table.scores.dtype, table.positives.dtype, table.negatives.dtype)
    assert kinds == (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.int64))
    return table.scores.tolist(), table.positives.tolist(), table.negatives.tolist()


def class_content(table: ClassTable) -> tuple[Any, ...]:
    assert table.confusion.dtype == np.int64
    return table.confusion.tolist(), [content(one) for one in table.by_class]


def split(array: NDArray[Any], at: list[int]) -> list[NDArray[Any]]:
    return np.split(array, sorted(min(cut, len(array)) for cut in at))


# -- two classes ------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(scored_rows, tied)
def test_binary_metrics_are_scikit_learns(rows: list[tuple[float, int]], threshold: float) -> None:
    scores, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a metric is undefined
        expected = binary_oracle(scores, labels, threshold)
    found = binary_metrics(score_table(scores, labels), threshold)
    same(found, expected)
    assert found["auc"] == pytest.approx(reference.pairwise_auc(scores.tolist(), labels.tolist()), nan_ok=True)


def test_binary_metrics_on_many_rows() -> None:
    rng = np.random.default_rng(7)
    scores = np.round(rng.beta(2, 3, size=20_000), 3)
    labels = (rng.random(20_000) < scores).astype(np.int8)
    same(binary_metrics(score_table(scores, labels)), binary_oracle(scores, labels, 0.5))


@given(scored_rows, cuts)
def test_score_tables_of_any_split_merge_to_the_whole(rows: list[tuple[float, int]], at: list[int]) -> None:
    scores, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    whole = score_table(scores, labels)
    parts = [score_table(s, y) for s, y in zip(split(scores, at), split(labels, at), strict=True)]
    assert content(merge_score_tables(parts)) == content(merge_score_tables(parts[::-1])) == content(whole)
    assert whole.rows == len(rows)
    assert whole.scores.tolist() == sorted(set(scores.tolist()))


def test_metrics_of_merged_parts_are_bit_for_bit_those_of_the_whole() -> None:
    rng = np.random.default_rng(8)
    scores = rng.random(10_000).astype(np.float32)
    labels = rng.random(10_000) < scores
    expected = binary_metrics(score_table(scores, labels))
    for n_parts in (3, 16):
        place = rng.integers(0, n_parts, 10_000)
        parts = [score_table(scores[place == p], labels[place == p]) for p in range(n_parts)]
        assert binary_metrics(merge_score_tables(parts)) == expected


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label: int) -> None:
    found = binary_metrics(score_table(np.array([0.2, 0.9]), np.array([label, label])))
    assert math.isnan(found["auc"])
    assert {name for name, value in found.items() if math.isnan(value)} == {"auc"}
    certain = binary_metrics(score_table(np.array([float(label)]), np.array([label])))
    assert math.isnan(certain["kappa"])
    assert certain["mcc"] == 0.0


def test_a_score_at_the_threshold_is_negative() -> None:
    table = score_table(np.array([0.5, 0.5000001]), np.array([1, 1]))
    assert binary_metrics(table)["recall"] == 0.5
    assert binary_metrics(table, threshold=0.4)["recall"] == 1.0


def test_certain_and_wrong_is_clipped_as_scikit_learn_does() -> None:
    found = binary_metrics(score_table(np.array([0.0, 1.0]), np.array([1, 0])))
    assert found["log_loss"] == pytest.approx(-math.log(np.finfo(np.float64).eps))


def test_both_zeros_and_roundings_are_one_score() -> None:
    table = score_table(np.array([-0.0, 0.0, -1e-9, 1.0 + 1e-7, 1.0]), np.array([0, 1, 0, 1, 1]))
    assert content(table) == ([0.0, 1.0], [1, 2], [2, 0])
    assert not np.signbit(table.scores).any()


def test_no_rows() -> None:
    empty = merge_score_tables([])
    assert content(empty) == ([], [], []) == content(merge_score_tables([empty, empty]))
    for evaluate in (binary_metrics, expected_calibration_error):
        with pytest.raises(DataError, match="no rows to evaluate: the test set is empty"):
            evaluate(empty)


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.5, math.inf])
def test_scores_that_are_no_probabilities(bad: float) -> None:
    with pytest.raises(DataError, match=rf"between 0 and 1; 1 of 2 are not, the first is {bad}\. Turn margins"):
        score_table(np.array([0.5, bad]), np.array([0, 1]))
    with pytest.raises(DataError, match="between 0 and 1; 1 of 4 are not"):
        class_table(np.array([[0.5, 0.5], [bad, 0.5]]), np.array([0, 1]))


@pytest.mark.parametrize("bad", [2, -1, math.nan, 0.5])
def test_labels_that_are_not_two_classes(bad: float) -> None:
    with pytest.raises(DataError, match=r"Two-class labels must be 0 or 1; 1 of 2 are not, the first is"):
        score_table(np.array([0.5, 0.5]), np.array([0, bad]))


def test_lengths_must_agree() -> None:
    for tabulate in (score_table, error_table):
        with pytest.raises(ValueError, match="arrays of 2 and 1 rows do not belong together"):
            tabulate(np.array([0.5, 0.5]), np.array([1]))


# -- calibration ------------------------------------------------------------------------------------


@given(scored_rows, st.integers(1, 12))
def test_calibration_against_a_loop_over_rows(rows: list[tuple[float, int]], bins: int) -> None:
    table = score_table(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))
    found = calibration(table, bins)
    gaps = 0.0
    for i, part in enumerate(found):
        lower, upper = i / bins, (i + 1) / bins
        inside = [row for row in rows if lower <= row[0] < upper or (i == bins - 1 and row[0] == 1.0)]
        assert (part["lower"], part["upper"], part["count"]) == (lower, upper, len(inside))
        if not inside:
            assert part["mean_score"] is None
            assert part["positive_rate"] is None
            continue
        mean, rate = np.mean(inside, axis=0)
        assert part["mean_score"] == pytest.approx(mean)
        assert part["positive_rate"] == pytest.approx(rate)
        gaps += len(inside) * abs(rate - mean)
    assert expected_calibration_error(table, bins) == pytest.approx(gaps / len(rows), abs=1e-12)


def test_calibrated_scores_have_a_small_error() -> None:
    rng = np.random.default_rng(9)
    chance = rng.random(50_000)
    labels = rng.random(50_000) < chance
    assert expected_calibration_error(score_table(chance, labels)) < 0.01
    assert expected_calibration_error(score_table(chance**3, labels)) > 0.2


# -- several classes --------------------------------------------------------------------------------


def probabilities(rows: list[tuple[int, tuple[int, ...]]]) -> tuple[NDArray[Any], NDArray[Any]]:
    raw = np.array([row[1] for row in rows], dtype=np.float64) + 0.5
    return raw / raw.sum(axis=1, keepdims=True), np.array([row[0] for row in rows])


@settings(max_examples=60)
@given(class_rows)
def test_multiclass_metrics_are_scikit_learns(rows: list[tuple[int, tuple[int, ...]]]) -> None:
    matrix, labels = probabilities(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a metric is undefined
        expected = multiclass_oracle(matrix, labels)
    same(multiclass_metrics(class_table(matrix, labels)), expected)


def test_multiclass_metrics_on_many_rows() -> None:
    rng = np.random.default_rng(10)
    matrix = rng.dirichlet(np.ones(5), size=5000)
    labels = np.array([rng.choice(5, p=row) for row in matrix])
    found = multiclass_metrics(class_table(matrix, labels))
    same(found, multiclass_oracle(matrix, labels))
    assert found["auc"] == pytest.approx(oracle.roc_auc_score(labels, matrix, multi_class="ovr"))
    assert found["average_precision"] == pytest.approx(oracle.average_precision_score(labels, matrix))


@given(class_rows, cuts)
def test_class_tables_of_any_split_merge_to_the_whole(rows: list[tuple[int, tuple[int, ...]]], at: list[int]) -> None:
    matrix, labels = probabilities(rows)
    whole = class_table(matrix, labels)
    parts = [class_table(m, y) for m, y in zip(split(matrix, at), split(labels, at), strict=True)]
    assert class_content(merge_class_tables(parts)) == class_content(whole)
    assert class_content(merge_class_tables(parts[::-1])) == class_content(whole)
    assert whole.rows == len(rows)


def test_two_columns_agree_with_the_binary_metrics() -> None:
    rng = np.random.default_rng(11)
    scores = rng.random(500)
    labels = (rng.random(500) < scores).astype(int)
    many = multiclass_metrics(class_table(np.column_stack([1 - scores, scores]), labels))
    two = binary_metrics(score_table(scores, labels))
    for name in ("accuracy", "auc", "kappa", "mcc", "log_loss"):
        assert many[name] == pytest.approx(two[name]), name
    assert many["brier"] == pytest.approx(2 * two["brier"])


def test_a_class_that_is_absent_from_the_test_set_is_left_out_of_the_ranking() -> None:
    matrix = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    found = multiclass_metrics(class_table(matrix, np.array([0, 1, 0])))
    assert (found["auc"], found["average_precision"], found["recall"]) == (1.0, 1.0, 1.0)
    assert math.isnan(multiclass_metrics(class_table(matrix, np.array([1, 1, 1])))["auc"])


def test_multiclass_refusals() -> None:
    matrix = np.full((2, 3), 1 / 3)
    for bad in (3, -1, 0.5, math.nan, math.inf):
        with pytest.raises(DataError, match="labels must be whole numbers from 0 to 2; 1 of 2 are not"):
            class_table(matrix, np.array([0, bad]))
    with pytest.raises(DataError, match="no rows to evaluate"):
        multiclass_metrics(class_table(matrix[:0], np.empty(0)))
    with pytest.raises(ValueError, match=r"as many classes; these have \[2, 3\]"):
        merge_class_tables([class_table(matrix, [0, 1]), class_table(matrix[:, :2], [0, 1])])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="arrays of 2 and 3 rows do not belong together"):
        class_table(matrix, np.array([0, 1, 2]))


# -- regression -------------------------------------------------------------------------------------


@given(errors_rows)
def test_regression_metrics_are_scikit_learns(rows: list[tuple[float, float]]) -> None:
    target, predicted = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = regression_metrics(error_table(predicted, target))
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(target, predicted))
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(target, predicted))
    if np.unique(target).size > 1:
        expected = float(reference.exact_r2(predicted.tolist(), target.tolist()))
        assert found["r2"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_r2_is_scikit_learns_even_on_a_large_offset() -> None:
    rng = np.random.default_rng(12)
    target = 1e9 + rng.normal(size=3000)
    predicted = target + rng.normal(scale=0.3, size=3000)
    found = regression_metrics(error_table(predicted, target))["r2"]
    assert found == pytest.approx(oracle.r2_score(target, predicted), rel=1e-9)
    assert found == pytest.approx(oracle.r2_score(target - 1e9, predicted - 1e9), rel=1e-9)


@given(errors_rows, cuts)
def test_error_tables_of_any_split_merge_to_the_whole(rows: list[tuple[float, float]], at: list[int]) -> None:
    target, predicted = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    parts = [error_table(p, t) for p, t in zip(split(predicted, at), split(target, at), strict=True)]
    assert merge_error_tables(parts) == merge_error_tables(parts[::-1]) == error_table(predicted, target)


@pytest.mark.parametrize("target", [[2.0, 2.0, 2.0], [0.1, 0.1, 0.1]])
def test_a_constant_target(target: list[float]) -> None:
    wanted = np.array(target)
    assert regression_metrics(error_table(wanted, wanted)) == {"rmse": 0.0, "mae": 0.0, "r2": 1.0}
    assert regression_metrics(error_table(wanted + 1, wanted))["r2"] == 0.0
    assert oracle.r2_score([2.0, 2.0], [3.0, 3.0]) == 0.0
    assert oracle.r2_score([2.0, 2.0], [2.0, 2.0]) == 1.0
    assert regression_metrics(error_table(wanted[:1] - 1, wanted[:1]))["r2"] == 0.0


def test_regression_refusals() -> None:
    with pytest.raises(DataError, match="no rows to evaluate"):
        regression_metrics(merge_error_tables([]))
    for bad in (math.nan, math.inf, -1e200):
        with pytest.raises(DataError, match=r"Targets must be finite and below 1e150 .* 1 of 2 are not"):
            error_table(np.array([1.0, 2.0]), np.array([1.0, bad]))
        with pytest.raises(DataError, match="Predictions must be finite and below 1e150"):
            error_table(np.array([1.0, bad]), np.array([1.0, 2.0]))


# -- groups -----------------------------------------------------------------------------------------


def test_group_counts_and_rates_against_scikit_learn() -> None:
    rng = np.random.default_rng(13)
    labels, predicted = rng.integers(0, 2, 600), rng.random(600) < 0.4
    groups = rng.integers(0, 3, 600)
    counts = group_counts(labels, predicted, groups, 4)
    assert counts.shape == (4, 2, 2)
    assert counts.dtype == np.int64
    for group in range(3):
        inside = groups == group
        y, said = labels[inside], predicted[inside].astype(int)
        assert counts[group].tolist() == oracle.confusion_matrix(y, said).tolist()
        assert group_rates(counts[group]) == {
            "n": int(inside.sum()),
            "selection_rate": pytest.approx(said.mean()),
            "tpr": pytest.approx(oracle.recall_score(y, said)),
            "fpr": pytest.approx(1 - oracle.recall_score(y, said, pos_label=0)),
            "accuracy": pytest.approx(oracle.accuracy_score(y, said)),
        }
    halves = [group_counts(labels[part], predicted[part], groups[part], 4) for part in (slice(0, 17), slice(17, None))]
    assert np.array_equal(halves[0] + halves[1], counts)


def test_undefined_rates_are_none() -> None:
    nobody = group_rates(np.zeros((2, 2), dtype=np.int64))
    assert nobody == {"n": 0, "selection_rate": None, "tpr": None, "fpr": None, "accuracy": None}
    negatives_only = group_rates(group_counts(np.array([0, 0]), np.array([1, 0]), np.array([0, 0]), 1)[0])
    assert negatives_only == {"n": 2, "selection_rate": 0.5, "tpr": None, "fpr": 0.5, "accuracy": 0.5}
    positives_only = group_rates(group_counts(np.array([1]), np.array([1]), np.array([0]), 1)[0])
    assert positives_only == {"n": 1, "selection_rate": 1.0, "tpr": 1.0, "fpr": None, "accuracy": 1.0}


def test_group_refusals() -> None:
    one = np.array([1])
    with pytest.raises(DataError, match="Codes of groups must be whole numbers from 0 to 1; 1 of 1 are not"):
        group_counts(one, one, np.array([2]), 2)
    with pytest.raises(DataError, match=r"first is -1.* Give unseen or missing ones a code of their own"):
        group_counts(one, one, np.array([-1]), 2)
    with pytest.raises(DataError, match="Two-class predictions must be 0 or 1"):
        group_counts(one, np.array([0.7]), one, 2)
    with pytest.raises(ValueError, match="do not belong together"):
        group_counts(one, one, np.array([0, 1]), 2)
