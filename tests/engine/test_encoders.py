"""Feature operations against scikit-learn on the whole data, and the laws of fitted operations."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from tests.engine.parts import applied, fitted_on, job_of
from treadle.engine.artifacts import Features
from treadle.engine.backend import DTYPES
from treadle.engine.encoders import MAX_LEVELS, AnyFitted, FittedLevels, to_matrix
from treadle.engine.encoders.columns import Indicator
from treadle.engine.features import check
from treadle.errors import DataError, RequestError

KINDS = {"c": "text", "i": "int", "b": "bool", "f": "float", "t": "timestamp"}
VALUES = {
    "c": st.sampled_from([None, "", "1", "a", "A", "other", "nan", "True"]),
    "i": st.sampled_from([None, 0, 1, -7, 9, 10, 2**40]),
    "b": st.sampled_from([None, True, False]),
    "f": st.sampled_from([None, 0.0, -0.0, 1.0, 2.5, -1e7]),
    "t": st.sampled_from([None, pd.Timestamp("2024-02-29 13:59"), pd.Timestamp("1969-12-31 23:00")]),
}
ROWS = st.lists(st.tuples(*VALUES.values()), min_size=1, max_size=20)
FIRST = ("a", 1, True, 2.5, pd.Timestamp("2024-02-29"))
"""A row without nulls: a column that is null throughout cannot be learnt from."""
COLUMNS = ["c", "i", "b", "f"]
DATES = {"op": "date_parts", "columns": ["t"]}


def frame_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = zip(*rows, strict=True)
    return pd.DataFrame({name: pd.Series(list(c), dtype=DTYPES[KINDS[name]]) for name, c in zip(KINDS, columns)})  # noqa: B905


def halves(frame: pd.DataFrame) -> list[pd.DataFrame]:
    cut = len(frame) // 2
    return [frame.iloc[:cut].reset_index(drop=True), frame.iloc[cut:].reset_index(drop=True)]


def one_column(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[[name]].astype("float64").to_numpy()


@settings(max_examples=20, deadline=None)
@given(ROWS, ROWS)
def test_scalers_agree_with_scikit_learn(rows: list[Any], others: list[Any]) -> None:
    train, test = frame_of([FIRST, *rows]), frame_of(others)
    for method, scaler in (("standard", StandardScaler()), ("minmax", MinMaxScaler())):
        fitted, kinds, inputs = fitted_on(
            [{"op": "scale", "columns": ["i", "b", "f"], "method": method}], *halves(train)
        )
        assert list(kinds) == list(KINDS)
        for frame in (train, test):
            found = applied(fitted, inputs, frame)
            for name in ("i", "b", "f"):
                expected = scaler.fit(one_column(train, name)).transform(one_column(frame, name))[:, 0]
                np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9)
            pd.testing.assert_frame_equal(found[["c", "t"]], frame[["c", "t"]])


def test_a_constant_column_scales_to_zero() -> None:
    frame = pd.DataFrame({"x": [0.1] * 7, "z": [np.nan, 3.0] * 3 + [np.nan]})
    for method in ("standard", "minmax"):
        fitted, _, inputs = fitted_on([{"op": "scale", "columns": "numeric", "method": method}], frame[:3], frame[3:])
        found = applied(fitted, inputs, frame)
        assert (found["x"] == 0).all()
        assert (found["z"].dropna() == 0).all()


@settings(max_examples=20, deadline=None)
@given(ROWS, ROWS)
def test_one_hot_and_ordinal_agree_with_scikit_learn(rows: list[Any], others: list[Any]) -> None:
    train, test = frame_of([FIRST, *rows]), frame_of(others)
    hot, kinds, inputs = fitted_on([DATES, {"op": "one_hot", "columns": COLUMNS}], *halves(train))
    ranked, _, _ = fitted_on([DATES, {"op": "ordinal", "columns": COLUMNS}], *halves(train))
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    ranks = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, dtype=np.float64)
    unlike_any = {"c": "<null>", "i": -1.0, "b": -1.0, "f": -1.0}
    for frame in (train, test):
        found, codes = applied(hot, inputs, frame), applied(ranked, inputs, frame)
        for name in COLUMNS:
            kind = object if name == "c" else "float64"
            known = train[[name]].dropna().astype(kind).to_numpy()
            asked = frame[[name]].astype(kind).fillna(unlike_any[name]).to_numpy()
            columns = [c for c in found if c.startswith(f"{name}=")]
            np.testing.assert_array_equal(found[columns], encoder.fit(known).transform(asked))
            np.testing.assert_array_equal(codes[name], ranks.fit(known).transform(asked)[:, 0])
            assert len(columns) == len(encoder.categories_[0])
            assert {kinds[c] for c in columns} == {"indicator"}


@settings(max_examples=20, deadline=None)
@given(ROWS, ROWS)
def test_imputation_agrees_with_scikit_learn(rows: list[Any], others: list[Any]) -> None:
    train, test = frame_of([FIRST, *rows]), frame_of(others)
    for method, strategy in (("median", "median"), ("mean", "mean"), ("mode", "most_frequent")):
        names = [*(["c"] if method == "mode" else []), "i", "b", "f"]
        section = {"op": "impute", "columns": names, "method": method, "indicator": True}
        fitted, kinds, inputs = fitted_on([section], *halves(train))
        found = applied(fitted, inputs, test)
        assert list(found) == list(kinds) == [*KINDS, *(f"{name}_missing" for name in names)]
        for name in names:
            kind: Any = object if name == "c" else "float64"
            imputer = SimpleImputer(strategy=strategy, missing_values=None if name == "c" else np.nan)
            known, asked = (f[[name]].astype(kind).to_numpy() for f in (train, test))
            if name == "c":
                known, asked = (np.where(pd.isna(values), None, values) for values in (known, asked))
            expected = imputer.fit(known).transform(asked)[:, 0]
            if name == "c":
                assert found[name].tolist() == expected.tolist()
            else:
                np.testing.assert_allclose(found[name], expected.astype(float), rtol=1e-12)
            assert found[f"{name}_missing"].tolist() == test[name].isna().astype(float).tolist()


def test_of_several_most_frequent_values_the_smallest_is_taken() -> None:
    frame = pd.DataFrame({"n": [10, 9, 10, 9, 100, None], "c": ["b", "a", "B", "b", "a", None]}).astype({"n": "Int64"})
    (fitted,), _, _ = fitted_on([{"op": "impute", "columns": ["n", "c"], "method": "mode"}], *halves(frame))
    assert fitted.model_dump()["values"] == {"n": 9, "c": "a"}


def test_constants_fill_as_they_are_given() -> None:
    frame = frame_of([FIRST, (None,) * 5])
    fitted, _, inputs = fitted_on(
        [
            {"op": "impute", "columns": ["c"], "method": "constant", "value": "1"},
            {"op": "impute", "columns": ["i", "b"], "method": "constant", "value": 0},
        ],
        frame,
    )
    found = applied(fitted, inputs, frame)
    assert found["c"].tolist() == ["a", "1"]
    assert found["i"].tolist() == [1.0, 0.0]
    assert found["b"].tolist() == [1.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(st.lists(VALUES["t"], min_size=1, max_size=9))
def test_date_parts(times: list[pd.Timestamp | None]) -> None:
    parts = ["year", "quarter", "month", "day", "weekday", "dayofyear", "hour", "minute"]
    frame = frame_of([(*FIRST[:-1], time) for time in times])
    fitted, kinds, inputs = fitted_on([{**DATES, "parts": parts}], frame)
    found = applied(fitted, inputs, frame)
    assert list(found) == list(kinds) == ["c", "i", "b", "f", *(f"t_{part}" for part in parts)]
    for row, time in enumerate(times):
        for part in parts:
            value = found[f"t_{part}"].iloc[row]
            if time is None:
                assert math.isnan(value)
            else:
                stated = getattr(time, part if part != "dayofyear" else "day_of_year")
                assert value == (stated() if callable(stated) else stated)


OPERATIONS: list[list[dict[str, Any]]] = [
    [{"op": "impute", "columns": COLUMNS, "method": "mode", "indicator": True}, {"op": "scale", "columns": "numeric"}],
    [{"op": "one_hot", "columns": COLUMNS, "missing": "?"}, {"op": "scale", "columns": "numeric"}],
    [{"op": "one_hot", "columns": COLUMNS, "missing": "1", "unseen": "other"}],
    [{"op": "ordinal", "columns": "all", "missing": "?", "unseen": "other"}, {"op": "one_hot", "columns": ["c"]}],
    [{"op": "scale", "columns": ["f"]}, {"op": "one_hot", "columns": "categorical"}, DATES],
    [{"op": "clip", "columns": "numeric"}, {"op": "bin", "columns": ["f"]}, {**DATES, "cyclic": True}],
    [{"op": "scale", "columns": ["i"], "method": "robust"}, {"op": "bin", "columns": "numeric", "method": "quantile"}],
    [
        {"op": "interactions", "columns": "numeric", "degree": 3},
        {"op": "scale", "columns": "all", "method": "quantile"},
    ],
    [{"op": "frequency", "columns": ["c", "f"]}, {"op": "ordinal", "columns": ["i", "b"], "min_count": 2}],
    [
        {"op": "text", "columns": ["c"], "hash_tokens": 3},
        {"op": "hash_encode", "columns": ["i", "b", "f"], "buckets": 4},
    ],
    [{"op": "one_hot", "columns": ["c", "i"], "max_levels": 1}, {"op": "one_hot", "columns": ["f"], "min_share": 0.3}],
]


@pytest.mark.parametrize("section", OPERATIONS, ids=[" ".join(s["op"] for s in section) for section in OPERATIONS])
def test_laws_of_fitted_operations(section: list[dict[str, Any]]) -> None:
    @settings(max_examples=8, deadline=None)
    @given(ROWS, ROWS)
    def check_laws(rows: list[Any], others: list[Any]) -> None:
        train, test = frame_of([FIRST, *rows]), frame_of(others)
        fitted, kinds, inputs = fitted_on(section, *halves(train))
        whole = applied(fitted, inputs, test)
        # The parts of a frame, one of them empty, give the parts of the outcome.
        pieces = [applied(fitted, inputs, part) for part in (test.iloc[:0], *halves(test))]
        pd.testing.assert_frame_equal(pd.concat(pieces, ignore_index=True), whole)
        # `kinds` foretells names, order and types.
        assert list(kinds) == list(whole)
        assert {name for name, kind in kinds.items() if kind == "text"} == set(whole.select_dtypes("str"))
        assert all(set(whole[name].unique()) <= {0.0, 1.0} for name, kind in kinds.items() if kind == "indicator")
        numbers = [name for name, kind in kinds.items() if kind in ("number", "indicator")]
        matrix = to_matrix({name: whole[name] for name in numbers}, numbers, len(test))
        assert matrix.dtype == np.float32
        assert matrix.shape == (len(test), len(numbers))
        # How the training rows were partitioned does not matter.
        alone, _, _ = fitted_on(section, train)
        pd.testing.assert_frame_equal(applied(alone, inputs, test), whole, rtol=1e-12)
        # As JSON and back they are the same, also inside the documents that keep them.
        adapter: TypeAdapter[Any] = TypeAdapter(tuple[AnyFitted, ...])
        again = adapter.validate_json(adapter.dump_json(tuple(fitted)))
        features = Features(table=(), names=tuple(kinds), inputs={}, operations=tuple(fitted))  # type: ignore[arg-type]
        kept = Features.model_validate(json.loads(json.dumps(features.model_dump(mode="json")))).operations
        for restored in (again, kept):
            assert repr(list(restored)) == repr(fitted)
            pd.testing.assert_frame_equal(applied(restored, inputs, test), whole)

    check_laws()


def test_levels_keep_their_types_as_json() -> None:
    levels: dict[str, tuple[Any, ...]] = {
        "a": ("", "1", "True", "1.0"),
        "b": (False, True),
        "i": (0, 1),
        "f": (0.0, 1.0),
    }
    fitted = FittedLevels(op="one_hot", levels=levels, missing=None, unseen="ignore")
    again = FittedLevels.model_validate_json(fitted.model_dump_json())
    for name, expected in levels.items():
        assert [(type(level), level) for level in again.levels[name]] == [(type(level), level) for level in expected]


def levels_of(values: list[Any], asked: list[Any], dtype: str = "str", **section: Any) -> pd.DataFrame:
    frames = [pd.DataFrame({"c": pd.Series(v, dtype=dtype)}) for v in (values, asked)]
    fitted, _, inputs = fitted_on([{"columns": ["c"], **section}], frames[0])
    return applied(fitted, inputs, frames[1])


def test_missing_names_the_level_of_nulls() -> None:
    found = levels_of(["b", None, "a"], ["a", None, "z"], op="one_hot", missing="?")
    assert found.to_dict("list") == {"c=a": [1, 0, 0], "c=b": [0, 0, 0], "c=?": [0, 1, 0]}
    shared = levels_of(["?", "a"], ["a", None, "?"], op="one_hot", missing="?")
    assert shared.to_dict("list") == {"c=?": [0, 1, 1], "c=a": [1, 0, 0]}
    number = levels_of([1, 2, None], [2, None, 1], "Int64", op="one_hot", missing="1")
    assert number.to_dict("list") == {"c=1": [0, 1, 1], "c=2": [1, 0, 0]}
    only = levels_of([None], [None, "a"], op="ordinal", missing="?")
    assert only["c"].tolist() == pytest.approx([0.0, np.nan], nan_ok=True)


def test_unseen_values_follow_the_policy() -> None:
    other = levels_of(["b", "a"], ["z", "b", None], op="one_hot", unseen="other")
    assert other.to_dict("list") == {"c=a": [0, 0, 0], "c=b": [0, 1, 0], "c=other": [1, 0, 0]}
    taken = levels_of(["other", "a"], ["z", "other", "a"], op="one_hot", unseen="other")
    assert taken.to_dict("list") == {"c=a": [0, 0, 1], "c=other": [1, 1, 0]}
    ranks = levels_of(["other", "a"], ["z", "other", "a", None], op="ordinal", unseen="other", missing="?")
    assert ranks["c"].tolist() == [3, 1, 0, 2]
    with pytest.raises(DataError, match=r"'c' has values that the training rows did not have: 'z', 'y' \(3 rows\)"):
        levels_of(["a"], ["z", "a", "y", "z", None], op="ordinal", unseen="error")
    with pytest.raises(DataError, match=r"Known: \[True\]. Set unseen: ignore or unseen: other"):
        levels_of([True], [False], "boolean", op="one_hot", unseen="error")


def test_both_zeros_are_one_level() -> None:
    for values in ([0.0, -0.0], [-0.0, 0.0]):
        found = levels_of(values, values, "float64", op="one_hot")
        assert found.to_dict("list") == {"c=0.0": [1, 1]}


@pytest.mark.parametrize(
    ("section", "frame", "words"),
    [
        ({"op": "scale"}, {"x": [np.nan]}, "scale: column 'x' is null in every training row"),
        ({"op": "impute"}, {"x": [np.nan]}, "impute: column 'x' is null in every training row"),
        ({"op": "impute", "method": "mode"}, {"x": [np.nan]}, "impute: column 'x' is null in every training row"),
        ({"op": "one_hot"}, {"x": [np.nan]}, "column 'x' is null in every training row"),
        ({"op": "scale", "method": "minmax"}, {"x": [1, np.inf]}, "scale: column 'x' holds infinite values"),
        ({"op": "impute", "method": "mean"}, {"x": [np.inf, np.nan]}, "impute: column 'x' holds infinite values"),
        (
            {"op": "one_hot"},
            {"x": range(MAX_LEVELS + 1)},
            "one_hot: column 'x' has 1001 levels, more than 1000; use ordinal",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(section: dict[str, Any], frame: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        fitted_on([{**section, "columns": ["x"]}], pd.DataFrame(frame, dtype="float64"))


def test_infinite_features_are_refused() -> None:
    with pytest.raises(DataError, match="Feature 'x' is infinite or beyond 3.4e\\+38 in 2 rows, which no model takes"):
        to_matrix({"x": pd.Series([1e39, -np.inf, 1.0, np.nan])}, ["x"], 4)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 100])
def test_the_matrix_holds_what_the_columns_do(rows: int) -> None:
    """Numbers of any layout, and 0/1 columns in runs that are cut, turned round or of other codes."""
    rng = np.random.default_rng(rows)
    codes, others = (rng.integers(-1, 4, rows).astype(np.int32) for _ in range(2))
    wide = rng.normal(size=(rows, 5)).astype(np.float32)
    columns: dict[str, Any] = {
        "series": pd.Series(rng.normal(size=rows)),
        "int": pd.array(np.where(rng.random(rows) < 0.3, None, np.arange(rows)), dtype="Int64"),
        "float32": wide[:, 3],
        "turned": rng.normal(size=rows)[::-1],
        "bools": rng.random(rows) < 0.5,
        **{f"a{code}": Indicator(codes, code) for code in range(4)},
        **{f"b{code}": Indicator(others, code) for code in range(4)},
    }
    columns["int"] = pd.Series(columns["int"])
    names = [
        *("a0", "a1", "series", "a2", "a3", "b0", "b1", "b3", "b2", "turned", "int", "float32", "b3", "a0", "bools")
    ]
    plain = {n: c.astype("float64") if isinstance(c, pd.Series) else np.asarray(c) for n, c in columns.items()}
    expected = np.array([plain[name] for name in names], dtype=np.float32).T
    found = to_matrix(columns, names, rows)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected.reshape(rows, len(names)))


def test_selectors_and_refusals_of_columns() -> None:
    kinds = {**KINDS, "y": "float"}

    def features(*sections: dict[str, Any]) -> list[str]:
        return check(job_of(sections), kinds)

    dates = {"op": "date_parts", "columns": "all", "parts": ["year"]}
    hot = {"op": "one_hot", "columns": "categorical"}
    assert features(dates, hot, {"op": "scale", "columns": "numeric"}) == ["c=?", "i", "b", "f", "t_year"]
    with pytest.raises(
        RequestError, match=r"Features are numbers, and no feature operation encodes c \(text\), t \(ti"
    ):
        features()
    with pytest.raises(
        RequestError, match=r"features.0 \(scale\): column 'c' is a text; it works on indicator, number"
    ):
        features({"op": "scale", "columns": ["c"]})
    with pytest.raises(
        RequestError, match=r"Column 'I' was not found in the input of features.1 \(scale\).*Did you mea"
    ):
        features(dates, {"op": "scale", "columns": ["I"]})
    with pytest.raises(RequestError, match="impute: there would be two features called 'i_missing'; rename"):
        features(*[{"op": "impute", "columns": ["i"], "indicator": True}] * 2, dates, hot)
    with pytest.raises(ValidationError, match="value: it is needed with method: constant, and only there"):
        features({"op": "impute", "columns": ["i"], "value": 3})
