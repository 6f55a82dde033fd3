"""Target encoding: scikit-learn's means, cross-fitted so that no row's own target has a part in its value."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import TargetEncoder

from tests.engine.parts import Parts, applied, by_path, job_of
from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.encoders import Fitted, FittedTarget, Training, to_matrix
from treadle.engine.encoders.base import Kind
from treadle.engine.features import check
from treadle.engine.job import Job
from treadle.engine.operation import ROW_ID
from treadle.engine.recipe import Recipe, fit, inputs_of, make_block
from treadle.engine.rows import hash_keys
from treadle.errors import DataError, RequestError
from treadle.kernels.hashing import mix64

CLASSES: dict[str, tuple[Any, ...]] = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
FOLDS = 5
CITY: dict[str, Any] = {"op": "target_encode", "columns": ["city"]}


def data(task: str, rows: int = 300, seed: int = 1, levels: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    code = rng.integers(0, levels, rows)
    city = np.array([f"city {c}" if c else None for c in code], dtype=object)
    noise = rng.normal(size=rows)
    target: dict[str, Any] = {
        "binary": pd.Series(np.where(code + 4 * noise > 6, "yes", "no"), dtype="str"),
        "multiclass": pd.Series(np.array([*"abc"])[np.digitize(code + 4 * noise, [3, 8])], dtype="str"),
        "regression": pd.Series(1e6 + code + 3 * noise),
    }
    return pd.DataFrame(
        {
            ROW_ID: pd.array(rng.permutation(rows) + 1000, dtype="Int64"),
            "city": pd.Series(city, dtype="str"),
            "size": pd.array(np.where(rng.random(rows) < 0.1, None, code // 3), dtype="Int64"),
            "y": target[task],
        }
    )


def fitted_on(
    section: dict[str, Any], task: str, *frames: pd.DataFrame, **how: Any
) -> tuple[Fitted, dict[str, Kind], list[str], Job]:
    """The one operation fitted, the kinds after it, the columns before it, and the job."""
    job = job_of([section], **how)
    inputs = inputs_of(job, kinds_of(frames[0]))
    rule = by_path(task, CLASSES[task])
    fitted, kinds = fit(Parts(frames, ["train"] * len(frames)), job, rule, inputs)  # type: ignore[arg-type]
    return fitted[0], kinds, list(inputs), job


def training(frame: pd.DataFrame, seed: int = 7) -> Training:
    return Training(np.ones(len(frame), dtype=bool), hash_keys(frame[ROW_ID], seed))


def halves(frame: pd.DataFrame) -> list[pd.DataFrame]:
    cut = len(frame) // 3
    return [frame.iloc[a:b].reset_index(drop=True) for a, b in ((0, cut), (cut, cut), (cut, len(frame)))]


def reference(task: str, smoothing: Any, train: pd.DataFrame, asked: pd.DataFrame, column: str) -> np.ndarray:
    """scikit-learn's encoder, fitted on all of `train`: (rows, columns). Null is a text of its own."""
    kind = "continuous" if task == "regression" else task
    encoder = TargetEncoder(target_type=kind, smooth=smoothing)
    of, to = (
        f[column].astype("object").where(f[column].notna(), "<null>").astype(str).to_numpy() for f in (train, asked)
    )
    return encoder.fit(of[:, None], train["y"].to_numpy()).transform(to[:, None])


@pytest.mark.parametrize("smoothing", ["auto", 0.0, 7.5])
@pytest.mark.parametrize("task", CLASSES)
def test_other_rows_get_scikit_learns_means_of_all_training_rows(task: str, smoothing: Any) -> None:
    train = data(task)
    asked = pd.concat([data(task, 50, seed=2, levels=20), train[:40]], ignore_index=True)
    for column in ("city", "size"):
        section = {**CITY, "columns": [column], "smoothing": smoothing}
        fitted, kinds, inputs, _ = fitted_on(section, task, *halves(train))
        titles = [column] if task != "multiclass" else [f"{column}~{c}" for c in CLASSES[task]]
        assert [name for name in kinds if name.startswith(column)] == titles
        found = applied([fitted], inputs, asked)
        assert list(found) == list(kinds)
        np.testing.assert_allclose(found[titles], reference(task, smoothing, train, asked, column), rtol=1e-9)


@pytest.mark.parametrize("smoothing", ["auto", 2.0])
@pytest.mark.parametrize("task", CLASSES)
def test_training_rows_get_the_means_of_the_other_folds(task: str, smoothing: Any) -> None:
    train = data(task)
    fitted, _, inputs, _ = fitted_on({**CITY, "smoothing": smoothing}, task, *halves(train))
    own = training(train)
    folds = own.folds(FOLDS)
    assert np.bincount(folds).min() > 30
    found = applied([fitted], inputs, train, own)
    titles = ["city"] if task != "multiclass" else [f"city~{c}" for c in CLASSES[task]]
    for fold in range(FOLDS):
        held_out = folds == fold
        expected = reference(task, smoothing, train[~held_out], train[held_out], "city")
        np.testing.assert_allclose(found.loc[held_out, titles], expected, rtol=1e-9)
    # Rows beside them that are not for training get what rows to predict get.
    some = Training(np.arange(len(train)) % 2 == 0, own.keys)
    mixed, plain = applied([fitted], inputs, train, some), applied([fitted], inputs, train)
    pd.testing.assert_frame_equal(mixed[::2], found[::2])
    pd.testing.assert_frame_equal(mixed[1::2], plain[1::2])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 120), max_size=4), st.sampled_from(sorted(CLASSES)), st.integers(0, 3))
def test_no_partitioning_changes_it(cuts: list[int], task: str, seed: int) -> None:
    frame = data(task, 120, seed)
    whole, _, inputs, _ = fitted_on(CITY, task, frame)
    edges = [0, *sorted(cuts), len(frame)]
    parts = [frame.iloc[a:b].reset_index(drop=True) for a, b in itertools.pairwise(edges)]
    parted, _, _, _ = fitted_on(CITY, task, *parts[::-1])
    expected = applied([whole], inputs, frame, training(frame))
    made = [applied([parted], inputs, part, training(part)) for part in parts]
    pd.testing.assert_frame_equal(pd.concat(made, ignore_index=True), expected, rtol=1e-9)


def auc_of_one_feature(frame: pd.DataFrame, rule: SplitRule, column: str, naive: bool) -> float:
    """Of the training rows' values as a job makes them, or as they would be without folds."""
    job = job_of([{**CITY, "columns": [column]}], tables=[{"op": "select", "columns": [column, "y"]}])
    inputs = inputs_of(job, {column: "text", "y": "text"})
    fitted, kinds = fit(Parts(halves(frame), ["train"] * 3), job, rule, inputs)  # type: ignore[arg-type]
    if naive:
        (values,) = to_matrix(dict(applied(fitted, [*inputs], frame)), [*kinds], len(frame)).T
        return float(roc_auc_score(frame["y"] == "yes", values))
    blocks = [make_block(part, "train", Recipe(job, rule, (*inputs,), (*fitted,)), [*kinds]) for part in halves(frame)]
    target = np.concatenate([block.target for block in blocks])
    return float(roc_auc_score(target, np.concatenate([block.matrix[:, 0] for block in blocks])))


@pytest.mark.parametrize("rows_a_level", [1, 2, 10])
def test_a_random_target_leaks_nothing(rows_a_level: int) -> None:
    """A column of many values says nothing of a coin: its encoding may look as if only where a row saw itself."""
    rng = np.random.default_rng(rows_a_level)
    rows = 20_000
    frame = pd.DataFrame(
        {
            ROW_ID: pd.array(range(rows), dtype="Int64"),
            "city": pd.Series(rng.integers(0, rows // rows_a_level, rows).astype(str), dtype="str"),
            "y": pd.Series(np.where(rng.random(rows) < 0.3, "yes", "no"), dtype="str"),
        }
    )
    rule = by_path("binary", ("no", "yes"))
    assert auc_of_one_feature(frame, rule, "city", naive=True) > 0.6
    # Four deviations of the AUC of a random score.
    assert abs(auc_of_one_feature(frame, rule, "city", naive=False) - 0.5) < 4 / (12 * rows * 0.3 * 0.7) ** 0.5


def test_a_column_that_says_something_still_does() -> None:
    frame = data("binary", 5000)
    assert auc_of_one_feature(frame, by_path("binary", ("no", "yes")), "city", naive=False) > 0.75


def test_changing_a_rows_target_does_not_change_its_own_value() -> None:
    train = data("binary", 200)
    before, _, inputs, _ = fitted_on(CITY, "binary", train)
    own = training(train)
    base = applied([before], inputs, train, own)["city"]
    folds = own.folds(FOLDS)
    for row in (0, 17, 120):
        changed = train.copy()
        changed.loc[row, "y"] = "no" if train["y"][row] == "yes" else "yes"
        after, _, _, _ = fitted_on(CITY, "binary", changed)
        found = applied([after], inputs, train, own)["city"]
        np.testing.assert_array_equal(found[folds == folds[row]], base[folds == folds[row]])
        assert (found != base).any()


def test_folds_follow_ids_and_seed_and_differ_from_the_split() -> None:
    ids = pd.Series(range(20_000), dtype="Int64")
    keys = hash_keys(ids, 7)
    every = Training(np.ones(len(ids), dtype=bool), keys)
    folds = every.folds(4)
    assert abs(np.bincount(folds, minlength=4) - 5000).max() < 5 * 5000**0.5
    # The split takes the lowest keys for the test: the others fall into all folds all the same.
    rest = Training(keys > np.uint64(2**62), keys).folds(4)
    assert set(rest[keys <= np.uint64(2**62)]) == {-1}
    assert abs(np.bincount(rest[rest >= 0], minlength=4) - 3750).max() < 5 * 3750**0.5
    assert (Training(every.rows, hash_keys(ids, 8)).folds(4) != folds).mean() == pytest.approx(0.75, abs=0.02)
    assert (mix64(keys, 0) != keys).any()


def test_groups_of_a_split_share_a_fold() -> None:
    frame = data("regression", 400).assign(shop=lambda f: pd.array(np.arange(len(f)) // 10, dtype="Int64"))
    job = job_of([CITY], split={"kind": "group", "column": "shop"})
    rule = SplitRule.model_validate({**by_path().model_dump(), "kind": "group", "column": "shop", "bounds": (0,)})
    of = Recipe(job, rule, ("city",)).training(frame, np.ones(len(frame), dtype=bool))
    assert of is not None
    folds = of.folds(FOLDS)
    assert (pd.Series(folds).groupby(frame["shop"]).nunique() == 1).all()
    assert len(set(folds)) == FOLDS


def test_later_operations_are_fitted_on_what_training_rows_get() -> None:
    frame = data("binary", 400)
    job = job_of([CITY, {"op": "scale", "columns": ["city"]}])
    inputs = inputs_of(job, kinds_of(frame))
    rule = by_path("binary", CLASSES["binary"])
    fitted, _ = fit(Parts(halves(frame), ["train"] * 3), job, rule, inputs)  # type: ignore[arg-type]
    scaled = applied(fitted, [*inputs], frame, training(frame))["city"]
    assert scaled.mean() == pytest.approx(0.0, abs=1e-9)
    assert scaled.std(ddof=0) == pytest.approx(1.0)
    assert abs(applied(fitted, [*inputs], frame)["city"].std(ddof=0) - 1.0) > 1e-3


def test_unseen_values_and_null_follow_the_policy() -> None:
    train = data("binary").dropna(subset=["city"]).reset_index(drop=True)
    asked = pd.DataFrame({"city": pd.Series(["Atlantis", None, "city 1"], dtype="str"), "size": [1, 1, 1]})
    mean = (train["y"] == "yes").mean()
    for unseen, expected in (("mean", mean), ("ignore", np.nan)):
        fitted, _, inputs, _ = fitted_on({**CITY, "unseen": unseen}, "binary", train)
        found = applied([fitted], inputs, asked)["city"]
        # No training row was null: it says as little as a value that none had.
        assert found[:2].tolist() == pytest.approx([expected, mean], nan_ok=True)
        assert 0 < found[2] < mean
    fitted, _, inputs, _ = fitted_on({**CITY, "unseen": "error"}, "binary", train)
    with pytest.raises(DataError, match="'city' has values that the training rows did not have: 'Atlantis'"):
        applied([fitted], inputs, asked)


def test_levels_of_one_fold_only_get_the_mean_of_the_others() -> None:
    train = data("regression", 100).assign(city=pd.Series([f"{i}" for i in range(100)], dtype="str"))
    fitted, _, inputs, _ = fitted_on(CITY, "regression", train)
    folds = training(train).folds(FOLDS)
    found = applied([fitted], inputs, train, training(train))["city"]
    for fold in range(FOLDS):
        expected = train["y"][folds != fold].mean()
        np.testing.assert_allclose(found[folds == fold], expected, rtol=1e-12)


def test_constant_targets_and_rows_without_one() -> None:
    frame = data("regression", 60)
    frame["y"] = 3.5
    fitted, _, inputs, _ = fitted_on(CITY, "regression", frame)
    assert set(applied([fitted], inputs, frame, training(frame))["city"]) == {3.5}
    half = data("regression", 60)
    half.loc[::2, "y"] = np.nan
    fitted, _, _, _ = fitted_on(CITY, "regression", half)
    kept, _, _, _ = fitted_on(CITY, "regression", half[1::2].reset_index(drop=True))
    assert fitted == kept
    half["y"] = np.nan
    with pytest.raises(DataError, match="target_encode: column 'city' is null in every training row"):
        fitted_on(CITY, "regression", half)


def test_what_is_kept_for_prediction() -> None:
    frame = data("multiclass")
    fitted, _, inputs, _ = fitted_on(CITY, "multiclass", frame)
    assert isinstance(fitted, FittedTarget)
    kept = fitted.at_prediction()
    assert "held_out" not in kept.model_dump(mode="json", exclude_defaults=True)
    again = FittedTarget.model_validate_json(kept.model_dump_json())
    assert again == kept != fitted
    pd.testing.assert_frame_equal(applied([again], inputs, frame), applied([fitted], inputs, frame))


def test_without_a_target_it_is_refused() -> None:
    job = Job.model_validate({"name": "job", "data": {"path": "x"}, "features": [CITY]})
    with pytest.raises(RequestError, match=r"features.0 \(target_encode\): it needs a target; name the column in data"):
        check(job, {"city": "text"})
