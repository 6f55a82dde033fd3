"""Folds of the training rows, whatever the partitions, and features that are fitted without one of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.parts import Parts, job_of
from tests.engine.test_split import frame_of, parts_of, rule_of
from treadle.engine import folds
from treadle.engine.artifacts import Folds, SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.operation import ROW_ID
from treadle.engine.recipe import inputs_of
from treadle.engine.rows import assign, folds_of
from treadle.engine.store import Store
from treadle.engine.trials.fold_data import fold_data
from treadle.errors import DataError

CUTS = st.lists(st.integers(0, 200), max_size=3)


def folds_from(frames: Sequence[pd.DataFrame], rule: SplitRule, job: Any) -> Folds:
    """What the stage makes of these partitions."""
    context: Any = SimpleNamespace(job=job, live={"rows": Parts(frames, ["any"] * len(frames))})
    return folds.run(context, SimpleNamespace(kinds=kinds_of(frames[0])), rule)  # type: ignore[arg-type]


def made(frame: pd.DataFrame, cuts: Sequence[int] = (), **sections: Any) -> tuple[Folds, np.ndarray, np.ndarray]:
    """The folds, that of each training row, and which rows those are; the same for all partitions."""
    job = job_of(**sections)
    how = sections.pop("split", None)
    rule = rule_of([frame], how, **sections)
    found = folds_from(parts_of(frame, cuts), rule, job)
    assert found == folds_from([frame.sample(frac=1, random_state=2)], rule, job)
    target, test = assign(frame, "any", job, rule)
    return found, folds_of(frame, target, found)[~test], ~test


@settings(max_examples=30, deadline=None)
@given(st.integers(60, 300), st.integers(2, 8), CUTS)
def test_random_folds_are_of_one_size_and_drawn_apart_from_the_test(rows: int, count: int, cuts: list[int]) -> None:
    found, of_rows, _ = made(frame_of(rows), cuts, compare={"folds": count, "by": "random"})
    sizes = np.bincount(of_rows, minlength=count)
    assert sizes.tolist() == list(found.rows)
    assert sizes.max() - sizes.min() <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(60, 300), st.integers(2, 8), CUTS)
def test_stratified_folds_have_their_share_of_every_class(rows: int, count: int, cuts: list[int]) -> None:
    frame = frame_of(rows)
    found, of_rows, training = made(frame, cuts, compare={"folds": count})
    assert found.kind == "stratified"
    for name in "abc":
        sizes = np.bincount(of_rows[frame["y"][training] == name], minlength=count)
        assert sizes.max() - sizes.min() <= 1


def test_groups_stay_together() -> None:
    frame = frame_of(300).assign(shop=pd.array(np.arange(300) % 40, dtype="Int64"))
    found, of_rows, training = made(frame, compare={"folds": 4, "by": "group", "column": "shop"})
    assert found.count == 4
    assert (pd.Series(of_rows).groupby(frame["shop"][training].to_numpy()).nunique() == 1).all()
    by_split, *_ = made(frame, split={"kind": "group", "column": "shop"}, compare={"folds": 4})
    assert (by_split.kind, by_split.column) == ("group", "shop")


def test_folds_by_time_are_trained_on_what_came_before() -> None:
    frame = frame_of(240)
    job = job_of(compare={"folds": 3, "by": "time", "column": "when"})
    rule = rule_of([frame], compare={"folds": 3, "by": "time", "column": "when"})
    found = folds_from([frame], rule, job)
    seen = 0
    for fold in range(3):
        target, test = assign(frame, "any", job, rule.without(found, fold))
        trained = ~test & ~np.isnan(target)
        used = frame["when"]
        assert used[trained].max() < used[test & ~np.isnan(target)].min()
        assert trained.sum() == rule.without(found, fold).train_rows > seen
        assert (test & ~np.isnan(target)).sum() == found.rows[fold]
        seen = trained.sum()


def test_given_folds_are_those_of_the_column_and_the_rest_is_for_the_test() -> None:
    frame = frame_of(100)
    frame["fold"] = pd.array(np.where(np.arange(100) % 4 == 0, None, np.arange(100) % 3), dtype="Int64")
    found, of_rows, training = made(frame, [10, 50], split={"kind": "folds", "column": "fold"})
    assert found.values == (0, 1, 2)
    np.testing.assert_array_equal(training, frame["fold"].notna())
    np.testing.assert_array_equal(of_rows, frame["fold"][training].astype(int))


def test_a_fold_leaves_real_test_rows_out_altogether() -> None:
    frame = frame_of(200)
    job = job_of(compare={"folds": 5})
    rule = rule_of([frame])
    found = folds_from([frame], rule, job)
    _, test = assign(frame, "any", job, rule)
    parts = []
    for fold in range(5):
        target, of_fold = assign(frame, "any", job, rule.without(found, fold))
        known = ~np.isnan(target)
        np.testing.assert_array_equal(known, ~test)
        parts.append(of_fold & known)
    np.testing.assert_array_equal(np.sum(parts, axis=0), ~test)


@pytest.mark.parametrize(
    ("compare", "words"),
    [
        ({"folds": 90}, "fold 1 of 90 has no rows; there are too few distinct rows"),
        ({"folds": 30, "by": "group", "column": "shop"}, "too few groups of 'shop' for so many folds"),
        ({"folds": 60, "by": "time", "column": "when"}, "too few times in 'when' for so many folds"),
    ],
)
def test_more_folds_than_there_is_for_them(compare: dict[str, Any], words: str) -> None:
    frame = frame_of(100).assign(shop=pd.array(np.arange(100) % 7, dtype="Int64"))
    with pytest.raises(DataError, match=words):
        folds_from([frame], rule_of([frame]), job_of(compare=compare))


def test_given_folds_are_two_at_least() -> None:
    frame = frame_of(50).assign(fold=pd.array([1] * 50, dtype="Int64"))
    how = {"kind": "folds", "column": "fold"}
    with pytest.raises(DataError, match="column 'fold' names 1 folds of the training rows; there are 2 to 100"):
        folds_from([frame], rule_of([frame], how), job_of(split=how))


def test_classes_with_fewer_rows_than_folds_are_told() -> None:
    frame = frame_of(60)
    frame["y"] = pd.array(["a"] * 30 + ["b"] * 27 + ["c"] * 3, dtype="str")
    found = folds_from([frame], rule_of([frame]), job_of(compare={"folds": 5}))
    assert found.warnings == ("class 'c' has 2 training rows, fewer than there are folds: some test none of it",)


def test_features_are_fitted_without_the_fold_and_without_the_test_rows(tmp_path: Any) -> None:
    """Against pandas: the median and the levels of the rows that are trained on."""
    rng = np.random.default_rng(4)
    frame = frame_of(150).drop(columns=["when", "shop"])
    frame["x"] = np.where(rng.random(150) < 0.2, np.nan, rng.lognormal(size=150))
    frame["word"] = pd.array(rng.choice([f"w{i}" for i in range(60)], 150), dtype="str")
    operations = [
        {"op": "impute", "columns": ["x"], "method": "median"},
        {"op": "frequency", "columns": ["word"]},
    ]
    job = job_of(operations, compare={"folds": 3})
    rule = rule_of([frame])
    found = folds_from([frame], rule, job)
    store = Store(str(tmp_path))
    for fold in range(3):
        of_fold = rule.without(found, fold)
        target, test = assign(frame, "any", job, of_fold)
        known = ~np.isnan(target)
        train = frame[known & ~test]
        halves = parts_of(frame, [70])
        data = fold_data(halves, ["any"] * 2, job, of_fold, inputs_of(job, kinds_of(frame)), store, f"{fold}.parquet")
        assert data.names == ("x", "word")
        shares = train["word"].value_counts(normalize=True)
        for matrix, rows in ((data.matrix, train), (data.test_matrix, frame[known & test])):
            np.testing.assert_allclose(matrix[:, 0], rows["x"].fillna(train["x"].median()), rtol=1e-6)
            np.testing.assert_allclose(matrix[:, 1], rows["word"].map(shares).astype(float).fillna(0), rtol=1e-6)
        np.testing.assert_array_equal(data.target, target[known & ~test])
        np.testing.assert_array_equal(data.test_target, target[known & test])
        written = store.read_parquet(f"{fold}.parquet").to_pandas()
        assert written["id"].tolist() == frame[ROW_ID][known & test].tolist()
        assert written["target"].tolist() == data.test_target.tolist()
