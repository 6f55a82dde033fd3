"""Windows against DuckDB on whole tables, and against loops where its numbers are others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.engine.relations import DAY, duck, frame_of, frames, numbered, operation
from treadle.engine.backend import kinds_of
from treadle.errors import DataError, RequestError

KINDS = {
    "k": "int",
    "w": "text",
    "f": "float",
    "b": "bool",
    "t": "timestamp",
    "x": "float",
    "i": "int",
    "ts": "timestamp",
}
TIMES = [DAY + pd.Timedelta(n, unit) for n, unit in ((0, "s"), (0, "s"), (1, "s"), (3, "s"), (1, "us"), (2, "D"))]
FRAMES = frames(KINDS, x=[None, 0.25, -1.5, 3.0, 2.0, 1e17], i=[None, 0, 3, -2, 2**53 + 1], ts=TIMES).map(numbered)
KEYS = st.sampled_from([[], ["k"], ["w"], ["f"], ["b"], ["t"], ["k", "w"], ["b", "f", "k"]])
SQL = {
    "sum": "sum({})", "mean": "avg({})", "std": "stddev_samp({})",
    "min": "min({})", "max": "max({})", "count": "count({})",
}  # fmt: skip
COLUMNS = {
    "sum": ["x", "i", "b", "f"], "mean": ["x", "i", "b"], "std": ["x", "i", "b"], "min": ["x", "i", "b", "t", "f"],
    "max": ["x", "i", "b", "t", "f"], "count": ["x", "w", "t"],
}  # fmt: skip
SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "rows 3": ({"rows": 3}, "order by ts, n rows between 2 preceding and current row"),
    "rows 2 before": ({"rows": 2, "current": False}, "order by ts, n rows between 2 preceding and 1 preceding"),
    "span 3s": (
        {"span": "3s"}, "order by ts range between interval 2999999 microseconds preceding and current row",
    ),
    "span 1us before": (
        {"span": "1us", "current": False},
        "order by ts range between interval 1 microsecond preceding and interval 1 microsecond preceding",
    ),
    "span 2d before": (
        {"span": "2d", "current": False},
        "order by ts range between interval 2 days preceding and interval 1 microsecond preceding",
    ),
    "cum": ({}, "order by ts, n rows between unbounded preceding and current row"),
    "cum before": ({"current": False}, "order by ts, n rows between unbounded preceding and 1 preceding"),
}  # fmt: skip


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal, kinds and order of rows included; what DuckDB calls NaN is null here."""
    assert kinds_of(found) == kinds_of(expected)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(FRAMES, KEYS, st.sampled_from(sorted(SHAPES)))
def test_sums_means_deviations_extremes_and_counts(t: pd.DataFrame, by: list[str], shape: str) -> None:
    keys, over = SHAPES[shape]
    prefix = "cum" if shape.startswith("cum") else "rolling"
    outputs, selected = {}, []
    for function, columns in COLUMNS.items():
        for column in [*columns, *([None] if function == "count" else [])]:
            name = f"{function} of {column}"
            outputs[name] = {"function": f"{prefix}_{function}", "column": column, **keys}
            of = "*" if column is None else column if function in ("min", "max", "count") or column != "b" else "b::int"
            type_ = "::bigint" if function == "sum" and column in ("i", "b") else ""
            partition = f"partition by {', '.join(by)} " if by else ""
            selected.append(f'({SQL[function].format(of)} over ({partition}{over})){type_} as "{name}"')
    found = operation(op="window", by=by, order="ts", outputs=outputs).apply(t)
    assert_same(found, duck(f"select *, {', '.join(selected)} from t order by n", t=t))


@settings(max_examples=20, deadline=None)
@given(FRAMES, KEYS, st.integers(1, 3), st.sampled_from(["ts", "i"]))
def test_neighbours_and_places_in_the_order(t: pd.DataFrame, by: list[str], offset: int, order: str) -> None:
    t = t.assign(i=t["i"].fillna(7))
    moves = {
        f"{function} of {column}": {"function": function, "column": column, "offset": offset}
        for function in ("lag", "lead")
        for column in KINDS
    }
    places = {f: {"function": f} for f in ("row_number", "rank", "dense_rank", "time_since_last")}
    found = operation(op="window", by=by, order=order, outputs=moves | places).apply(t)
    window = f"partition by {', '.join(by)} order by {order}" if by else f"order by {order}"
    selected = [
        f'{move["function"]}({move["column"]}, {offset}) over ({window}, n) as "{name}"' for name, move in moves.items()
    ]
    number, unit = ("epoch_us(ts)", 1e6) if order == "ts" else ("i", 1)
    selected += [
        f"row_number() over ({window}, n) as row_number",
        f"rank() over ({window}) as rank",
        f"dense_rank() over ({window}) as dense_rank",
        f"({number} - lag({number}) over ({window}, n))::double / {unit} as time_since_last",
    ]
    assert_same(found, duck(f"select *, {', '.join(selected)} from t order by n", t=t))


def test_without_an_order_rows_go_as_they_come() -> None:
    t = frame_of({"k": "text", "x": "float"}, [("a", 1.0), (None, 2.0), ("a", None), ("a", 4.0), (None, 8.0)])
    outputs = {
        "before": {"function": "lag", "column": "x"},
        "sum": {"function": "cum_sum", "column": "x"},
        "two": {"function": "rolling_sum", "column": "x", "rows": 2},
        "number": {"function": "row_number"},
    }
    found = operation(op="window", by=["k"], outputs=outputs).apply(t)
    assert found["before"].tolist() == pytest.approx([math.nan, math.nan, 1.0, math.nan, 2.0], nan_ok=True)
    assert found["sum"].tolist() == [1.0, 2.0, 1.0, 5.0, 10.0]
    assert found["two"].tolist() == [1.0, 2.0, 1.0, 4.0, 10.0]
    assert found["number"].tolist() == [1, 1, 2, 3, 2]
    assert found[["k", "x"]].equals(t)


NUMBERS = [0.0, 0.25, 0.5, 2.0, 1e16, math.inf, -math.inf]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NUMBERS), st.none() | st.sampled_from(NUMBERS)), max_size=10),
    st.sampled_from([1e-9, 0.25, 1.75, 1e17]),
    st.booleans(),
)
def test_a_span_of_numbers_is_in_their_unit(rows: list[tuple[float, Any]], span: float, current: bool) -> None:
    t = frame_of({"at": "float", "x": "float"}, rows)
    outputs = {
        name: {"function": f"rolling_{name}", "column": "x", "span": span, "current": current}
        for name in ("sum", "std", "max", "count")
    }
    found = operation(op="window", order="at", outputs=outputs).apply(t)
    for row, (at, _) in enumerate(rows):

        def is_in(other: float, at: float = at) -> bool:
            if other == at:
                return current
            return other < at and math.isfinite(at - other) and (at - other < span if current else at - other <= span)

        x = [value for other, value in rows if is_in(other) and value is not None]
        assert found["count"][row] == len(x)
        with np.errstate(invalid="ignore"):
            sums = np.sum(x) if x else np.nan
            deviation = np.std(x, ddof=1) if len(x) > 1 else np.nan
        np.testing.assert_allclose(found["sum"][row], sums, rtol=1e-15)
        np.testing.assert_allclose(found["std"][row], deviation, rtol=1e-12)
        np.testing.assert_equal(found["max"][row], max(x) if x else np.nan)


@pytest.mark.parametrize(("span", "sums"), [(2, [1, 2, 6, 8]), (2.5, [1, 3, 6, 12]), (1.5, [1, 2, 6, 8])])
def test_whole_numbers_beyond_a_float_are_told_apart(span: float, sums: list[int]) -> None:
    """Such as nanoseconds since 1970."""
    t = frame_of({"at": "int", "x": "int"}, [(2**60 + at, x) for at, x in [(0, 1), (2, 2), (3, 4), (5, 8)]])
    output = {"function": "rolling_sum", "column": "x", "span": span}
    assert operation(op="window", order="at", outputs={"s": output}).apply(t)["s"].tolist() == sums
    turned = operation(op="window", order="at", outputs={"s": output}).apply(t[::-1].reset_index(drop=True))
    assert turned["s"].tolist() == sums[::-1]


def test_means_of_whole_numbers_do_not_wrap_around() -> None:
    t = frame_of({"x": "int"}, [(2**62,)] * 4)
    outputs = {
        "m": {"function": "cum_mean", "column": "x"},
        "r": {"function": "rolling_mean", "column": "x", "rows": 3},
    }
    found = operation(op="window", outputs=outputs).apply(t)
    assert found["m"].tolist() == found["r"].tolist() == [2.0**62] * 4


def test_what_was_in_the_window_leaves_no_trace() -> None:
    x = [0.1, 1e18, 0.2, math.inf, 0.3, 0.4, -1e300, 0.5, 0.7]
    t = frame_of({"x": "float"}, [(value,) for value in x])
    outputs = {f: {"function": f"rolling_{f}", "column": "x", "rows": 2} for f in ("sum", "mean", "std")}
    found = operation(op="window", outputs=outputs).apply(t)
    assert found["sum"].tolist()[5] == 0.3 + 0.4
    assert found["sum"].tolist()[8] == 0.5 + 0.7
    assert found["mean"].tolist()[5] == (0.3 + 0.4) / 2
    assert found["std"][8] == pytest.approx(np.std([0.5, 0.7], ddof=1), rel=1e-15)
    assert found["std"].isna().tolist() == [True, False, False, True, True, False, False, False, False]


def test_outputs_are_columns_at_the_end_or_in_the_place_of_others() -> None:
    t = frame_of({"k": "int", "x": "float", "y": "float"}, [(1, 1.0, 5.0), (1, 2.0, 6.0)])
    outputs = {"x": {"function": "lag", "column": "x"}, "z": {"function": "cum_sum", "column": "x"}}
    window = operation(op="window", by=["k"], outputs=outputs)
    found = window.apply(t)
    assert list(found.columns) == ["k", "x", "y", "z"]
    assert found["z"].tolist() == [1.0, 3.0]
    narrow = window.only(frozenset({"z"}))
    assert narrow.makes() == {"z"}
    pd.testing.assert_frame_equal(narrow.apply(t), t.assign(z=found["z"]))
    assert window.needs(frozenset({"z", "y"})) == {"k", "x", "y"}


ORDER = frame_of({"ts": "timestamp", "n": "int", "w": "text", "b": "bool"}, [])
SUM = {"function": "rolling_sum", "column": "n"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"order": "w", "outputs": {"a": SUM | {"rows": 2}}}, "order column 'w' is text; order by a time or a number"),
        ({"order": "b", "outputs": {"a": SUM | {"rows": 2}}}, "order column 'b' is bool; order by a time or a number"),
        ({"order": "n", "outputs": {"a": SUM | {"span": "7d"}}}, "'a': span 7d is time, and 'n' is int; cast it to"),
        ({"order": "ts", "outputs": {"a": SUM | {"span": 7}}}, "'a': span 7 has no unit, and 'ts' is a timestamp; wri"),
        (
            {"outputs": {"a": {"function": "cum_sum", "column": "ts"}}},
            "'a': cum_sum needs numbers, and column 'ts' is timestamp; cast it first",
        ),
        (
            {"outputs": {"a": {"function": "cum_max", "column": "w"}}},
            "'a': cum_max needs numbers or times, and column 'w' is text; cast it first",
        ),
    ],
)  # fmt: skip
def test_refusals_of_types(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=f"window:? {message}"):
        operation(op="window", **section).apply(ORDER)


def test_a_null_has_no_place_in_the_order() -> None:
    t = frame_of({"ts": "timestamp", "n": "int"}, [(DAY, 1), (None, 2), (None, 3)])
    with pytest.raises(DataError, match="window: the order column 'ts' is null in 2 rows; filter or fill them"):
        operation(op="window", order="ts", outputs={"a": {"function": "cum_sum", "column": "n"}}).apply(t)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"function": "lag"}, "column: missing; lag needs one"),
        ({"function": "rolling_sum", "rows": 2}, "column: missing; rolling_sum needs one"),
        ({"function": "rank", "column": "x"}, "column: rank follows from the order alone; leave column out"),
        ({"function": "rolling_sum", "column": "x"}, "rolling_sum needs either rows .the last 7 rows. or span"),
        ({"function": "rolling_count", "rows": 2, "span": "2d"}, "rolling_count needs either rows"),
        ({"function": "cum_sum", "column": "x", "rows": 2}, "rows and span are for rolling functions, not for cum_sum"),
        ({"function": "lag", "column": "x", "span": "2d"}, "rows and span are for rolling functions, not for lag"),
        ({"function": "cum_sum", "column": "x", "offset": 2}, "offset is for lag and lead, not for cum_sum"),
        ({"function": "lead", "column": "x", "current": False}, "current is for rolling and cumulative functions, not"),
        ({"function": "rolling_count", "span": "7"}, "'7' is no span of time; write a number and one of .us, ms, s"),
        ({"function": "rolling_count", "span": "7 years"}, "'7 years' is no span of time"),
        ({"function": "rolling_count", "span": "0d"}, "'0d' is no span of time"),
        ({"function": "rolling_count", "span": "0.1us"}, "'0.1us' is no span of time"),
        ({"function": "rolling_count", "span": "999999999w"}, "'999999999w' is no span of time"),
        ({"function": "rolling_count", "span": "-1d"}, "'-1d' is no span of time"),
        ({"function": "rolling_count", "span": 0}, "greater than 0"),
        ({"function": "rolling_count", "span": math.inf}, "finite number"),
        ({"function": "rolling_count", "rows": 0}, "greater than or equal to 1"),
        ({"function": "lag", "column": "x", "offset": 0}, "greater than or equal to 1"),
    ],
)
def test_refusals_of_keys(output: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        operation(op="window", order="ts", outputs={"a": output})


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"function": "rolling_count", "span": "1d"}, r"'a' \(rolling_count over a span\) needs a column to order by"),
        ({"function": "rank"}, r"'a' \(rank\) needs a column to order by"),
        ({"function": "time_since_last"}, r"'a' \(time_since_last\) needs a column to order by"),
    ],
)
def test_an_order_is_named_where_it_matters(output: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"order: missing; {message}"):
        operation(op="window", outputs={"a": output})


def test_spans_are_written_with_a_unit() -> None:
    t = frame_of({"ts": "timestamp"}, [(DAY + pd.Timedelta(hours=6 * n),) for n in range(9)])
    for span, rows in (("1d", 4), ("24 h", 4), ("1.5D", 6), ("0.25d", 1), ("86400s", 4), ("1440min", 4), ("1w", 9)):
        window = operation(op="window", order="ts", outputs={"n": {"function": "rolling_count", "span": span}})
        assert window.apply(t)["n"].tolist()[-1] == rows
