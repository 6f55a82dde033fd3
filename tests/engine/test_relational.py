"""Relational operations and casts against DuckDB."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.engine.relations import duck, frame_of, operation
from treadle.engine.backend import DTYPES
from treadle.engine.operation import ROW_ID
from treadle.engine.relational.cast import CastType, cast
from treadle.errors import DataError, RequestError

CAST_TYPES: dict[CastType, str] = {
    "int": "BIGINT",
    "float": "DOUBLE",
    "bool": "BOOLEAN",
    "text": "VARCHAR",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}
NUMBERS = [0.0, -0.5, 1.5, 2.0, -3.0, 1e6, 1e19, -1e300, math.inf, -math.inf, 2.0**62, 1e-9]
DIGITS = ["", " 12 ", "-7", "+7", "3.5", "4.0", "1e3", "1.", ".5", "9007199254740993", "-9223372036854775808", "007"]
DIGITS += ["9223372036854775807", "9223372036854775808", "99999999999999999999", "0.1000000000000000055", "0x1F"]
WORDS = ["true", "F", "no", "T", "1", "0", "2", "", "yes", "x", "nan ", "TRUE"]
DAYS = ["2024-02-29", "2023-02-29", "0001-01-01 00:00:00", "2024-01-01T10:00:00", "2024-01-01 10:11:12.123456"]
DAYS += ["2024-1-2", "12:00", "20240101", "9999-12-31", "2024-13-01", ""]
VALUES: dict[str, list[Any]] = {
    "int": [None, 0, 1, -1, 2, 10**6, 2**53 + 1, -(2**63), 2**63 - 1],
    "float": [None, *NUMBERS],
    "bool": [None, True, False],
    "text": [None],
    "timestamp": [None, *map(pd.Timestamp, ["1969-12-31 23:59:59.999999", "2024-02-29", "0100-01-01 05:06:07"])],
}
TEXTS = {"int": DIGITS, "float": [*DIGITS, "inf", "-Infinity"], "bool": WORDS, "timestamp": DAYS, "date": DAYS}
HALVES = [("int", "float"), ("int", "text")]
"""SQL rounds them; here they are lost values."""
KEY = st.none() | st.integers(0, 3)
WORD = st.none() | st.sampled_from(["", "a", "b"])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(KEY, WORD, st.none() | st.floats(-5, 5)), max_size=12))
def test_filter_and_derive_follow_sql(rows: list[Any]) -> None:
    t = frame_of({"k": "int", "w": "text", "x": "float"}, rows)
    for predicate in ("k > 1 or w = 'a'", "not (x < 0)", "w in ('', 'b') and k is not null"):
        found = operation(op="filter", sql=predicate).apply(t)
        assert list(found.index) == list(range(len(found)))
        pd.testing.assert_frame_equal(found, duck(f"select * from t where {predicate}", t=t))
    for formula in ("x + k", "coalesce(w, 'none')", "case when k = 0 then null else k end", "x >= k"):
        derived = operation(op="derive", name="y", sql=formula).apply(t)
        pd.testing.assert_frame_equal(derived, duck(f"select *, {formula} as y from t", t=t))
    replaced = operation(op="derive", name="k", sql="k + 1").apply(t)
    pd.testing.assert_frame_equal(replaced, duck("select k + 1 as k, w, x from t", t=t))


def test_rename_select_drop() -> None:
    frame = frame_of({ROW_ID: "int", "a": "int", "b": "text"}, [(7, 1, "x"), (8, None, None)])
    swapped = operation(op="rename", columns={"a": "b", "b": "a"}).apply(frame)
    pd.testing.assert_frame_equal(swapped, frame.set_axis([ROW_ID, "b", "a"], axis=1))
    selected = operation(op="select", columns=["b", "a"]).apply(frame)
    pd.testing.assert_frame_equal(selected, frame[[ROW_ID, "b", "a"]])
    pd.testing.assert_frame_equal(operation(op="drop", columns=["a"]).apply(frame), frame[[ROW_ID, "b"]])
    with pytest.raises(RequestError, match="rename: two columns would be called 'b'; drop one of them first"):
        operation(op="rename", columns={"a": "b"}).apply(frame)
    with pytest.raises(ValidationError, match=r"In the expression .a \+., character 3: it cannot be read"):
        operation(op="filter", sql="a +")


@pytest.mark.parametrize("target", CAST_TYPES)
@pytest.mark.parametrize("source", VALUES)
def test_casts_follow_sql_and_lose_nothing(source: str, target: CastType) -> None:
    values = [*VALUES[source], *(TEXTS.get(target, DAYS + DIGITS) if source == "text" else [])]
    t = frame_of({"x": source}, [(value,) for value in values])
    if "text" not in (source, target) and (source == "timestamp") != (target in ("timestamp", "date")):
        with pytest.raises(RequestError, match=f"column 'x' is {source}, and {source} cannot become {target}; .*"):
            cast(t["x"], target)
        return
    whole = "try_cast(x as DOUBLE) = trunc(try_cast(x as DOUBLE))" if (target, source) in HALVES else "true"
    kept = f"try_cast(x as {CAST_TYPES[target]})"
    expected = duck(
        f"select {kept} as y, x is null or coalesce({kept} is not null and {whole}, false) as fits from t", t=t
    )
    fits = expected["fits"].to_numpy(bool)
    found = cast(t["x"][fits], target)
    assert found.dtype == DTYPES["timestamp" if target == "date" else target]
    if (source, target) == ("float", "text"):  # DuckDB writes 1e+20 as 1e20
        np.testing.assert_array_equal(found.astype("float64"), t["x"])
    else:
        pd.testing.assert_series_equal(found, expected["y"][fits].astype(found.dtype), check_names=False)
    for value in t["x"][~fits]:
        alone = pd.Series([None, value], dtype=DTYPES[source], name="x")
        with pytest.raises(DataError, match=f"cast: 1 values of column 'x' are no {target}, e.g. .* with try_cast"):
            cast(alone, target)


def test_whole_keys_keep_every_digit_beside_a_null() -> None:
    keys = pd.Series(["9007199254740993", None], dtype="str", name="key")
    assert cast(keys, "int").tolist() == [9007199254740993, pd.NA]


def test_times_as_text_look_the_same_in_every_partition() -> None:
    midnight = pd.Series(pd.to_datetime(["2024-01-02", None]), dtype="datetime64[us]")
    assert cast(midnight, "text").tolist()[0] == "2024-01-02 00:00:00"


def test_formats_are_tried_in_order() -> None:
    texts = pd.Series(["03/04/2024", "2024-04-05", None, "06.07.2024 08:09", "01/02/2024 +0100"], dtype="str", name="d")
    found = cast(texts, "timestamp", ["%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y %H:%M", "%m/%d/%Y %z"])
    expected = ["2024-04-03", "2024-04-05", None, "2024-07-06 08:09", "2024-01-01 23:00"]
    assert found.tolist() == [pd.Timestamp(text) if text else pd.NaT for text in expected]
    days = cast(texts, "date", ["%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y %H:%M", "%m/%d/%Y %z"])
    assert days.tolist() == [time if time is pd.NaT else time.normalize() for time in found]
    with pytest.raises(DataError, match=r"2 values of column 'd' are no date, e.g. '2024-04-05', '06.07.2024 08"):
        cast(texts, "date", ["%d/%m/%Y", "%m/%d/%Y %z"])
