"""Rare levels, frequencies, hashes, texts and dates in cycles: against pandas, scikit-learn and plain Python."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from tests.engine.parts import applied, fitted_on, job_of
from treadle.engine.encoders import FittedLevels
from treadle.engine.features import check
from treadle.errors import DataError

LETTERS = st.lists(st.sampled_from([*"abcdef", None]), min_size=1, max_size=30)
COUNTED = ["b"] * 6 + ["a"] * 3 + ["d"] * 3 + ["c"] * 2 + ["e"]


def made(section: dict[str, Any], values: list[Any], asked: list[Any], dtype: str = "str") -> pd.DataFrame:
    """What becomes of column `c`, fitted on two partitions."""
    frames = [pd.DataFrame({"c": pd.Series(v, dtype=dtype)}) for v in (values, asked)]
    cut = len(values) // 2
    parts = [frames[0].iloc[:cut].reset_index(drop=True), frames[0].iloc[cut:].reset_index(drop=True)]
    fitted, _, inputs = fitted_on([{"columns": ["c"], **section}], *parts)
    return applied(fitted, inputs, frames[1])


@settings(max_examples=25, deadline=None)
@given(
    LETTERS.filter(any),
    LETTERS,
    st.sampled_from([{"min_count": 2}, {"min_count": 4}, {"min_share": 0.25}, {"max_levels": 2}, {"max_levels": 9}]),
    st.sampled_from(["ignore", "other"]),
)
def test_rare_levels_are_scikit_learns_infrequent_ones(
    train: list[Any], asked: list[Any], rare: dict[str, Any], unseen: str
) -> None:
    known = [value for value in train if value is not None]
    counts = Counter(known)
    limit = rare.get("min_count", 1)
    if "min_share" in rare:
        limit = max(math.ceil(rare["min_share"] * len(train)), 1)
    # max_categories counts the column of infrequent ones too, and only where there are more levels than that.
    most = rare.get("max_levels")
    if most is not None and most < len(counts):
        # Of equally frequent ones scikit-learn keeps the last.
        ranked = sorted(counts.values(), reverse=True)
        assume(ranked[most - 1] != ranked[most])
    most = None if most is None or most >= len(counts) else most + 1
    found = made({"op": "one_hot", "unseen": unseen, **rare}, train, asked)
    encoder = OneHotEncoder(
        min_frequency=limit,
        max_categories=most,
        handle_unknown="infrequent_if_exist" if unseen == "other" else "ignore",
        sparse_output=False,
    )
    encoder.fit(np.array(known, dtype=object)[:, None])
    expected = encoder.transform(np.array([value or "<null>" for value in asked], dtype=object)[:, None])
    titles = [str(name).replace("x0_", "c=") for name in encoder.get_feature_names_out()]
    named = [title.replace("infrequent_sklearn", "other") for title in titles]
    frame = pd.DataFrame(expected, columns=named)
    # scikit-learn takes null for unseen here, and has no column for unseen values while none is infrequent.
    null = [value is None for value in asked]
    if unseen == "other":
        strange = [value is not None and value not in counts for value in asked]
        if "c=other" in frame:
            frame.loc[null, "c=other"] = 0.0
        else:
            frame["c=other"] = np.array(strange, dtype=float)
    pd.testing.assert_frame_equal(found[list(frame)], frame, check_dtype=False)
    assert sorted(found) == sorted(frame)


def test_of_equally_frequent_levels_the_first_stay() -> None:
    found = made({"op": "one_hot", "max_levels": 2}, COUNTED, ["a", "b", "d", "e", "z", None])
    assert found.to_dict("list") == {
        "c=a": [1, 0, 0, 0, 0, 0],
        "c=b": [0, 1, 0, 0, 0, 0],
        "c=other": [0, 0, 1, 1, 0, 0],
    }


def test_rare_values_are_known_and_unseen_ones_are_not() -> None:
    ranks = made({"op": "ordinal", "min_count": 3}, COUNTED, ["d", "c", "e", "z", None])["c"]
    np.testing.assert_array_equal(ranks, [2, 3, 3, np.nan, np.nan])
    with pytest.raises(DataError, match=r"'c' has values that the training rows did not have: 'z' \(1 rows\)"):
        made({"op": "ordinal", "min_count": 3, "unseen": "error"}, COUNTED, ["d", "c", "z"])
    both = made({"op": "ordinal", "min_count": 3, "unseen": "other", "missing": "?"}, COUNTED, ["a", "c", "z", None])
    assert both["c"].tolist() == [0, 4, 4, 3]


def test_other_may_be_a_level_already() -> None:
    values = ["other"] * 3 + ["a"] * 3 + ["rare"]
    found = made({"op": "one_hot", "min_count": 2}, values, ["rare", "other", "a"])
    assert found.to_dict("list") == {"c=a": [0, 0, 1], "c=other": [1, 1, 0]}
    gone = made({"op": "one_hot", "min_count": 2}, ["other", "a", "a", "b"], ["other", "a", "b"])
    assert gone.to_dict("list") == {"c=a": [0, 1, 0], "c=other": [1, 0, 1]}
    null = made({"op": "one_hot", "min_count": 2, "missing": "other"}, ["b", "a", "a"], ["b", None, "a"])
    assert null.to_dict("list") == {"c=a": [0, 0, 1], "c=other": [1, 1, 0]}


def test_all_levels_may_be_rare() -> None:
    assert made({"op": "one_hot", "min_count": 5}, ["a", "b"], ["a", "z"]).to_dict("list") == {"c=other": [1, 0]}
    assert made({"op": "ordinal", "min_share": 0.9}, [1, 2], [2, 1], "Int64")["c"].tolist() == [0, 0]


def test_grouping_makes_one_hot_possible() -> None:
    values = [f"v{i}" for i in range(1500)] + ["v7"] * 3
    with pytest.raises(DataError, match=r"1500 levels, more than 1000; use ordinal or hash_encode for it, group rare"):
        made({"op": "one_hot"}, values, [])
    assert list(made({"op": "one_hot", "min_count": 2}, values, ["v7"])) == ["c=v7", "c=other"]
    assert made({"op": "one_hot", "max_levels": 1000}, values, ["v7"]).shape == (1, 1001)


def test_ordinal_with_rare_levels_is_scikit_learns() -> None:
    encoder = OrdinalEncoder(min_frequency=3).fit(np.array(COUNTED, dtype=object)[:, None])
    expected = encoder.transform(np.array([*"abcde"], dtype=object)[:, None])[:, 0]
    assert made({"op": "ordinal", "min_count": 3}, COUNTED, [*"abcde"])["c"].tolist() == expected.tolist()


@settings(max_examples=20, deadline=None)
@given(LETTERS, LETTERS)
def test_frequency_is_pandas(train: list[Any], asked: list[Any]) -> None:
    shares = pd.Series(train, dtype="str").value_counts(normalize=True, dropna=False)
    of = {None if pd.isna(value) else value: share for value, share in shares.items()}
    for unseen, otherwise in (("zero", 0.0), ("ignore", math.nan)):
        found = made({"op": "frequency", "unseen": unseen}, train, asked)["c"]
        # Null is a value like any other, with a share of 0 where no training row has it.
        expected = [of.get(value, otherwise if value is not None else 0.0) for value in asked]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_frequency_of_numbers_and_refusals() -> None:
    assert made({"op": "frequency"}, [2, 2, 3, None], [2, 3, 4, None], "Int64")["c"].tolist() == [0.5, 0.25, 0, 0.25]
    assert made({"op": "frequency"}, [0.0, -0.0], [-0.0], "float64")["c"].tolist() == [1.0]
    assert made({"op": "frequency"}, [None, None], [None, "a"])["c"].tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match="'c' has values that the training rows did not have: 'z'"):
        made({"op": "frequency", "unseen": "error"}, ["a"], ["z", None])


def test_hashed_values_are_the_same_everywhere() -> None:
    values = ["a", None, "Köln", "a", ""]
    found = made({"op": "hash_encode", "buckets": 8}, [], values)
    assert list(found) == [f"c#{bucket}" for bucket in range(8)]
    # As tests/kernels/test_texts.py has the hashes: 0xfb76...8c, 0x6735...1b and 0.
    assert [row.index(1) if 1 in row else None for row in found.to_numpy().tolist()] == [4, None, 3, 4, 0]
    assert found.to_numpy().sum() == 4


@pytest.mark.parametrize("dtype", ["Int64", "float64", "boolean"])
def test_hashed_numbers(dtype: str) -> None:
    values = pd.Series([0, 1, None, 1] * 3, dtype=dtype)
    found = made({"op": "hash_encode", "buckets": 1000}, [], values.tolist(), dtype).to_numpy()
    assert found.sum(axis=1).tolist() == values.notna().astype(int).tolist()
    assert (found[1] == found[3]).all()
    assert (found[0] != found[1]).any()


def test_hashed_levels_spread() -> None:
    found = made({"op": "hash_encode", "buckets": 16}, [], [f"user-{i}" for i in range(16_000)])
    assert abs(found.sum() - 1000).max() < 5 * 1000**0.5
    numbers = made({"op": "hash_encode", "buckets": 16}, [], [*range(16_000)], "Int64")
    assert abs(numbers.sum() - 1000).max() < 5 * 1000**0.5


def words_of(text: str) -> list[str]:
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c == "_" else " " for c in text.lower())
    return kept.split()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | st.text("aZ09_ äÉ中ि\u00a0\n.,-'", max_size=25), min_size=1, max_size=8))
def test_texts_are_counted_as_python_does(values: list[str | None]) -> None:
    found = made({"op": "text", "hash_tokens": 4}, ["x"], values)
    assert list(found) == ["c_length", "c_words", "c#0", "c#1", "c#2", "c#3"]
    for row, value in zip(found.itertuples(index=False), values, strict=True):
        if value is None:
            assert math.isnan(row[0])
            assert math.isnan(row[1])
            assert sum(row[2:]) == 0
        else:
            assert row[0] == len(value)
            assert row[1] == sum(row[2:]) == len(words_of(value))


def test_a_word_has_the_bucket_of_its_value() -> None:
    found = made({"op": "text", "outputs": [], "hash_tokens": 64}, ["x"], ["Tea, tea and TEA!", "and"])
    alone = made({"op": "hash_encode", "buckets": 64}, ["x"], ["tea", "and"])
    assert found.loc[0].tolist() == (3 * alone.loc[0] + alone.loc[1]).tolist()
    assert found.loc[1].tolist() == alone.loc[1].tolist()


def test_outputs_of_text_stand_as_they_are_asked_for() -> None:
    assert list(made({"op": "text", "outputs": ["words", "length", "words"]}, ["x"], ["a b"])) == [
        "c_words",
        "c_length",
    ]
    sliced = pd.DataFrame({"c": pd.Series(["skipped", "one two", None, "x"], dtype="str")}).iloc[1:]
    fitted, _, inputs = fitted_on([{"op": "text", "columns": ["c"]}], sliced)
    assert applied(fitted, inputs, sliced)["c_words"].tolist() == pytest.approx([2, math.nan, 1], nan_ok=True)


CYCLES = {"quarter": (4, 1), "month": (12, 1), "week": (53, 1), "day": (31, 1), "weekday": (7, 0)} | {
    "dayofyear": (366, 1),
    "hour": (24, 0),
    "minute": (60, 0),
    "second": (60, 0),
}


def test_parts_that_come_round_lie_on_a_circle() -> None:
    rng = np.random.default_rng(2)
    times = pd.Series(
        np.datetime64("2023-12-25T00:00:00", "us") + rng.integers(0, 10**14, 50).astype("timedelta64[us]")
    )
    times[3] = pd.NaT
    parts = ["year", *CYCLES]
    frame = pd.DataFrame({"t": times})
    section = {"op": "date_parts", "columns": ["t"], "parts": parts, "cyclic": True}
    fitted, kinds, inputs = fitted_on([section], frame)
    found = applied(fitted, inputs, frame)
    circles = [[f"t_{part}", *([f"t_{part}_sin", f"t_{part}_cos"] if part in CYCLES else [])] for part in parts]
    assert list(found) == list(kinds) == [name for names in circles for name in names]
    assert found.loc[3].isna().all()
    np.testing.assert_array_equal(found["t_week"].dropna(), times.dropna().dt.isocalendar().week)
    np.testing.assert_array_equal(found["t_second"].dropna(), times.dropna().dt.second)
    for part, (period, first) in CYCLES.items():
        sin, cos = found[f"t_{part}_sin"], found[f"t_{part}_cos"]
        np.testing.assert_allclose((sin**2 + cos**2).dropna(), 1.0)
        angle = np.arctan2(sin, cos) % (2 * math.pi) * period / (2 * math.pi)
        np.testing.assert_allclose(np.round(angle) % period, found[f"t_{part}"] - first)


def test_rare_levels_and_unseen_ones_as_json() -> None:
    fitted, _, _ = fitted_on([{"op": "ordinal", "columns": ["c"], "min_count": 3}], pd.DataFrame({"c": COUNTED}))
    document = fitted[0].model_dump(mode="json")
    assert document["levels"] == {"c": ["a", "b", "d", "c", "e"]}
    assert document["rare"] == {"c": 2}
    assert FittedLevels.model_validate(document) == fitted[0]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"op": "one_hot", "min_count": 0}, "greater than or equal to 1"),
        ({"op": "ordinal", "min_share": 1.0}, "less than 1"),
        ({"op": "hash_encode", "buckets": 2000}, "less than or equal to 1000"),
        ({"op": "text", "outputs": []}, "neither outputs nor hash_tokens are asked for"),
        ({"op": "frequency", "unseen": "other"}, "'zero', 'ignore' or 'error'"),
    ],
)
def test_configurations_that_make_no_sense(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        job_of([{"columns": ["c"], **section}])


def test_what_is_known_of_the_features_without_data() -> None:
    kinds = {"c": "text", "d": "text", "e": "text", "n": "int", "t": "timestamp", "y": "float"}
    sections = [
        {"op": "hash_encode", "columns": ["c"], "buckets": 2},
        {"op": "text", "columns": ["d"]},
        {"op": "target_encode", "columns": ["e"]},
        {"op": "bin", "columns": ["n"]},
        {"op": "date_parts", "columns": ["t"], "parts": ["hour"], "cyclic": True},
    ]
    assert check(job_of(sections), kinds) == [
        *("c#0", "c#1", "d_length", "d_words", "e", "n", "t_hour", "t_hour_sin", "t_hour_cos"),
    ]
