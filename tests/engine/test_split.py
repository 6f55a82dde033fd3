"""Splits: exact sizes, the same whatever the partitioning, and a target that is understood or refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tests.engine.parts import Parts, job_of
from treadle.engine import split
from treadle.engine.artifacts import SplitRule
from treadle.engine.backend import kinds_of
from treadle.engine.operation import ROW_ID
from treadle.engine.rows import assign
from treadle.errors import DataError, RequestError

SHARES = st.sampled_from([0.01, 0.1, 0.25, 1 / 3, 0.5, 0.9])
CUTS = st.lists(st.integers(0, 300), max_size=4)


def frame_of(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            ROW_ID: pd.array(rng.permutation(rows) + 10**9, dtype="Int64"),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 50, rows), unit="h").as_unit("us"),
            "shop": pd.array(np.where(rng.random(rows) < 0.1, None, rng.integers(0, 40, rows)), dtype="Int64"),
            "y": pd.array(rng.choice(["a", "b", "b", "b", "c"], rows), dtype="str"),
        }
    )


def parts_of(frame: pd.DataFrame, cuts: Sequence[int] = ()) -> list[pd.DataFrame]:
    edges = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    return [frame.iloc[a:b].reset_index(drop=True) for a, b in itertools.pairwise(edges)]


def rule_of(
    frames: Sequence[pd.DataFrame], how: dict[str, Any] | None = None, roles: Sequence[str] = (), **sections: Any
) -> SplitRule:
    """What the stage makes of these partitions."""
    job = job_of(**sections, **({"split": how} if how else {}))
    rows = Parts(frames, roles or ["any"] * len(frames))
    context: Any = SimpleNamespace(job=job, live={"rows": rows})
    prepared: Any = SimpleNamespace(kinds=kinds_of(frames[0]))
    return split.run(context, prepared)


def is_test(frame: pd.DataFrame, rule: SplitRule, how: dict[str, Any], **sections: Any) -> np.ndarray:
    return assign(frame, "any", job_of(split=how, **sections), rule)[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 300), SHARES, st.integers(0, 2**31 - 1), CUTS)
def test_a_random_split_has_exactly_the_share(rows: int, share: float, seed: int, cuts: list[int]) -> None:
    how = {"kind": "random", "test_size": share}
    frame = frame_of(rows)
    rule = rule_of(parts_of(frame, cuts), how, seed=seed)
    test = is_test(frame, rule, how, seed=seed)
    assert test.sum() == rule.test_rows == min(max(round(share * rows), 1), rows - 1)
    assert rule.train_rows == rows - rule.test_rows
    assert rule == rule_of([frame.sample(frac=1, random_state=1)], how, seed=seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 300), SHARES, CUTS, st.booleans())
def test_a_stratified_split_takes_the_share_of_every_class(
    rows: int, share: float, cuts: list[int], by_default: bool
) -> None:
    how = {"kind": "stratified", "test_size": 0.25 if by_default else share}
    frame = frame_of(rows)
    frame.loc[frame.index[::7], "y"] = None
    known = frame["y"].dropna()
    rule = rule_of(parts_of(frame, cuts), None if by_default else how)
    assert rule.kind == "stratified"
    assert rule.dropped_rows == len(frame) - len(known)
    test = is_test(frame, rule, how)[frame["y"].notna()]
    for label, count in known.value_counts().items():
        wanted = max(round(how["test_size"] * count), 1)  # type: ignore[operator]
        assert test[known == label].sum() == min(wanted, count - 1)
    assert rule.test_rows == test.sum()
    assert rule.train_rows == len(known) - test.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(10, 300), SHARES, CUTS, st.sampled_from(["when", "number", "whole"]))
def test_a_split_by_time_takes_the_latest(rows: int, share: float, cuts: list[int], column: str) -> None:
    hours = (frame_of(rows)["when"] - pd.Timestamp("2024-01-01")) / pd.Timedelta(1, "h")
    frame = frame_of(rows).assign(number=hours - 20.5, whole=hours.astype("Int64") - 20)
    how = {"kind": "time", "column": column, "test_size": share}
    try:
        rule = rule_of(parts_of(frame, cuts), how)
    except DataError:
        reject()  # rows of one time stay together, and can be all that there are
    test = is_test(frame, rule, how)
    assert frame[column][~test].max() < frame[column][test].min()
    wanted = max(round(share * rows), 1)
    ties = (frame[column] == frame[column][test].min()).sum()
    assert wanted <= test.sum() == rule.test_rows < wanted + ties


@pytest.mark.parametrize("column", ["shop", "name", "member", "size"])
def test_a_split_by_group_keeps_groups_together(column: str) -> None:
    frame = frame_of(2000)
    frame = frame.assign(name=frame["shop"].astype("str"), size=frame["shop"].astype("float64") / 3)
    frame["member"] = (frame["shop"] > 20).astype("boolean")
    how = {"kind": "group", "column": column, "test_size": 0.3}
    if column == "member":
        with pytest.raises(
            DataError, match="split: kind 'group' puts 0 of 2000 rows into the test set; both sides need"
        ):
            rule_of([frame], {**how, "test_size": 0.001})
        return
    rule = rule_of(parts_of(frame, [3, 900]), how)
    assert rule == rule_of([frame], how)
    test = is_test(frame, rule, how)
    sides = frame.assign(test=test).groupby(column, dropna=False)["test"].nunique()
    assert len(sides) > 30
    assert (sides == 1).all()
    assert 0.2 < test.mean() < 0.35


def test_the_seed_decides_and_ids_of_any_type_do() -> None:
    frame = frame_of(400)
    ids = {"int": frame[ROW_ID], "text": frame[ROW_ID].astype("str"), "time": frame["when"], "float": frame.index / 3}
    drawn = {}
    for name, values in ids.items():
        how = {"kind": "random", "test_size": 0.5}
        one = frame.assign(**{ROW_ID: values})
        for seed in (1, 2):
            drawn[name, seed] = is_test(one, rule_of([one], how, seed=seed), how, seed=seed)
    keys = list(drawn)
    for i, a in enumerate(keys):
        for b in keys[:i]:
            assert 0.3 < (drawn[a] == drawn[b]).mean() < 0.7, (a, b)


def test_a_split_by_path_follows_the_roles() -> None:
    frame = frame_of(50)
    how = {"kind": "path", "path": "test.parquet"}
    rule = rule_of([frame, frame[:20]], how, roles=["train", "test"])
    assert (rule.train_rows, rule.test_rows) == (50, 20)
    job = job_of(split=how)
    assert assign(frame, "test", job, rule)[1].all()
    assert not assign(frame, "train", job, rule)[1].any()


TARGETS: list[tuple[dict[str, Any], pd.Series, str, tuple[Any, ...]]] = [
    ({}, pd.Series(["no", "yes"] * 9, dtype="str"), "binary", ("no", "yes")),
    ({"positive_class": "no"}, pd.Series(["no", "yes"] * 9, dtype="str"), "binary", ("yes", "no")),
    ({"positive_class": "1"}, pd.Series([1, 2] * 9, dtype="Int64"), "binary", (2, 1)),
    ({}, pd.Series([True, False] * 9, dtype="boolean"), "binary", (False, True)),
    ({"positive_class": False}, pd.Series([True, False] * 9, dtype="boolean"), "binary", (True, False)),
    ({}, pd.Series([10, 9, -1] * 9, dtype="Int64"), "multiclass", (-1, 9, 10)),
    ({}, pd.Series(range(21), dtype="Int64"), "regression", ()),
    ({"task": "classification"}, pd.Series(list(range(21)) * 2, dtype="Int64"), "multiclass", tuple(range(21))),
    ({"task": "regression"}, pd.Series([0, 1] * 9, dtype="Int64"), "regression", ()),
    ({}, pd.Series([0.0, 1.0] * 9), "regression", ()),
]


@pytest.mark.parametrize(("data", "target", "task", "classes"), TARGETS)
def test_what_the_target_is(data: dict[str, Any], target: pd.Series, task: str, classes: tuple[Any, ...]) -> None:
    frame = pd.DataFrame({ROW_ID: pd.array(range(len(target)), dtype="Int64"), "y": target})
    frames = parts_of(frame, [0, 5])
    rule = rule_of(frames, {"kind": "random"}, data=data)
    assert (rule.task, rule.classes) == (task, classes)
    assert [type(value) for value in rule.classes] == [type(value) for value in classes]
    codes = np.concatenate([assign(f, "any", job_of(split={"kind": "random"}), rule)[0] for f in frames])
    assert codes.tolist() == [float(classes.index(v)) if classes else float(v) for v in target]
    assert SplitRule.model_validate_json(rule.model_dump_json()) == rule
    assert [type(c) for c in SplitRule.model_validate_json(rule.model_dump_json()).classes] == list(map(type, classes))


@pytest.mark.parametrize(
    ("data", "target", "words"),
    [
        ({}, ["a"] * 5, "The target 'y' has one class only, 'a'; a model needs two"),
        ({}, [None] * 5, "The target 'y' is null in all 5 rows; there is nothing to learn"),
        ({}, [f"c{i}" for i in range(101)], "The target 'y' has 101 classes, more than 100"),
        (
            {"positive_class": "Yes"},
            ["no", "yes"],
            r"'Yes' is no value of 'y'. Values: \['no', 'yes'\]. Did you mean 'yes'",
        ),
        (
            {"positive_class": "a"},
            ["a", "b", "c"],
            r"data.positive_class is for two classes, and 'y' has 3: \['a', 'b'",
        ),
        ({}, [], "No row is left after tables; look at the filters and inner joins"),
    ],
)
def test_targets_that_nothing_can_be_learnt_from(data: dict[str, Any], target: list[Any], words: str) -> None:
    frame = pd.DataFrame({ROW_ID: pd.array(range(len(target)), dtype="Int64"), "y": pd.array(target, dtype="str")})
    with pytest.raises(DataError, match=words):
        rule_of([frame], data=data)


def test_types_that_rule_a_target_or_split_out() -> None:
    kinds = {"y": "float", "t": "text", "when": "timestamp"}
    with pytest.raises(RequestError, match="'y' is float, and task: classification is for classes.*columns: {y: int}"):
        split.check(job_of(data={"task": "classification"}), kinds)
    with pytest.raises(RequestError, match="The target 'when' is timestamp; models predict classes or numbers"):
        split.check(job_of(data={"target": "when"}), kinds)
    with pytest.raises(RequestError, match="The target 't' is text; task: regression needs numbers"):
        split.check(job_of(data={"target": "t", "task": "regression"}), kinds)
    with pytest.raises(RequestError, match="split: column 't' is text; kind: time orders the rows by a timestamp"):
        split.check(job_of(split={"kind": "time", "column": "t"}), kinds)
    frame = frame_of(5)
    frame.loc[2, "when"] = pd.NaT
    with pytest.raises(DataError, match="split: column 'when' is null in 1 rows; filter them out"):
        rule_of([frame], {"kind": "time", "column": "when"})
