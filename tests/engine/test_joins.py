"""Joins against DuckDB and, where rows are matched by time, against a loop."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.engine.relations import BACKEND, DAY, duck, frame_of, frames, numbered, operation
from treadle.engine import etl, job_inputs
from treadle.engine.job import Job
from treadle.engine.operation import Operation
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError

KEYS = {"i": "int", "f": "float", "b": "bool", "w": "text", "t": "timestamp"}
LEFT = frames(KEYS).map(numbered)
RIGHT = frames({**KEYS, "x": "float", "flag": "bool", "word": "text", "number": "int", "time": "timestamp"}).map(
    lambda frame: numbered(frame).rename(columns={"n": "m"})
)
ON = st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3, unique=True)


def join(**section: Any) -> Operation:
    return operation(op="join", **{"with": {"path": "r.parquet"}, **section})


@settings(max_examples=20, deadline=None)
@given(LEFT, RIGHT, ON, st.sampled_from(["left", "inner", "semi", "anti"]))
def test_joins_follow_sql(l: pd.DataFrame, r: pd.DataFrame, on: list[str], how: str) -> None:  # noqa: E741
    others = [name for name in r.columns if name not in KEYS]
    r = r[[*on, *others]] if how in ("left", "inner") else r
    found = join(on=on, how=how).apply(l, r)
    assert found["n"].is_monotonic_increasing
    match = " and ".join(f"l.{key} = r.{key}" for key in on)
    columns = "l.*" if how in ("semi", "anti") else f"l.*, {', '.join(others)}"
    order = "n" if how in ("semi", "anti") else "n, m nulls first"
    expected = duck(f"select {columns} from l {how} join r on {match} order by {order}", l=l, r=r)
    pd.testing.assert_frame_equal(found, expected)


TIMES = [DAY + pd.Timedelta(n, unit) for n, unit in ((0, "s"), (1, "s"), (2, "s"), (1, "us"), (2, "D"), (9, "D"))]
NUMBERS = [0.0, 0.25, 1.0, 2.0, 9.0, 1e300, math.inf, -math.inf]
WHOLE = [0, 1, 2, 5, 2**60, 2**60 + 1]
BY_TIME: dict[str, tuple[list[Any], dict[Any, float]]] = {
    "timestamp": (TIMES, {"1us": 1, "1s": 10**6, "1d": 86_400 * 10**6}),
    "float": (NUMBERS, {0.25: 0.25, 1: 1, 0: 0}),
    "int": (WHOLE, {1: 1, 2.5: 2.5, 0: 0}),
}
"""Of each kind of time some values, and tolerances with what they are in the unit of the time."""
TAKEN = {"x": "float", "number": "int", "word": "text", "flag": "bool"}


@st.composite
def tables_in_time(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame, Any]:
    """Two tables with times of one kind (`at` here, `since` there, which has nulls), and a tolerance."""
    kind = draw(st.sampled_from(sorted(BY_TIME)))
    pool, tolerances = BY_TIME[kind]
    keys = {"i": "int", "w": "text", "b": "bool"}
    left = draw(frames({**keys, "at": kind}, at=pool).map(numbered))
    right = draw(frames({**keys, "since": kind, **TAKEN}, since=[None, *pool]))
    return left, right, draw(st.none() | st.sampled_from(sorted(tolerances.items(), key=repr)))


def plain(series: pd.Series) -> list[Any]:
    """Values as Python has them: None for null, times in microseconds."""
    if series.dtype.kind == "M":
        series = series.astype("int64").astype("Int64").mask(series.isna())
    return [None if pd.isna(value) else value for value in series]


def finite(time: float) -> float:
    return min(max(time, -sys.float_info.max), sys.float_info.max)


def match_of(here: Any, candidates: list[tuple[Any, int]], direction: str, most: float | None) -> int:
    """Which row goes with the time `here`, by looking at all (time, row); -1 for none. Infinity is the last number."""
    if isinstance(here, float):
        here, candidates = finite(here), [(finite(time), row) for time, row in candidates]
    best: list[tuple[float, int]] = []
    before = [(time, row) for time, row in candidates if time <= here]
    after = [(time, -row) for time, row in candidates if time >= here]
    if before and direction != "forward":
        time, row = max(before)
        best.append((0 if time == here else here - time, row))
    if after and direction != "backward":
        time, negative = max((-time, row) for time, row in after)
        best.append((0 if -time == here else -time - here, -negative))
    apart, row = min(best, key=lambda pair: pair[0], default=(0, -1))
    return row if most is None or apart <= most else -1


@settings(max_examples=20, deadline=None)
@given(
    tables_in_time(),
    st.sampled_from([[], ["i"], ["w"], ["b", "i"]]),
    st.sampled_from(["backward", "forward", "nearest"]),
)
def test_a_join_by_time_takes_the_row_that_a_loop_finds(
    tables: tuple[pd.DataFrame, pd.DataFrame, Any], on: list[str], direction: str
) -> None:
    l, r, tolerance = tables  # noqa: E741
    r = r[[*on, "since", *TAKEN]]
    written, most = tolerance or (None, None)
    times = {"here": "at", "there": "since"}
    found = join(on=on, how="asof", tolerance=written, direction=direction, time=times).apply(l, r)
    pd.testing.assert_frame_equal(found[list(l.columns)], l)
    assert list(found.columns) == [*l.columns, "since", *TAKEN]
    here, there = ([plain(frame[name]) for name in (*on, time)] for frame, time in ((l, "at"), (r, "since")))
    rows = []
    for *keys, time in zip(*here, strict=True):
        candidates = [
            (other_time, row)
            for row, (*other_keys, other_time) in enumerate(zip(*there, strict=True))
            if other_time is not None and other_keys == keys and None not in keys
        ]
        rows.append(match_of(time, candidates, direction, most))
    for name in ("since", *TAKEN):
        expected = r[name].array.take(np.array(rows, dtype=np.int64), allow_fill=True)
        pd.testing.assert_series_equal(found[name], pd.Series(expected, name=name))


@settings(max_examples=8, deadline=None)
@given(
    frames({"i": "int", "ts": "timestamp"}, ts=TIMES).map(numbered),
    frames({"i": "int", "ts": "timestamp", "x": "float"}, ts=[None, *TIMES]),
)
def test_a_join_by_times_of_one_name_follows_sql(l: pd.DataFrame, r: pd.DataFrame) -> None:  # noqa: E741
    """The last of rows with equal times is DuckDB's to choose, so there are none."""
    r = r.drop_duplicates(["i", "ts"], ignore_index=True)
    found = join(on=["i"], how="asof", time="ts").apply(l, r)
    query = "select l.*, x from l asof left join r on l.i = r.i and l.ts >= r.ts order by n"
    pd.testing.assert_frame_equal(found, duck(query, l=l, r=r))


def test_of_equal_times_the_last_before_and_the_first_after_count() -> None:
    l = frame_of({"ts": "timestamp"}, [(DAY + pd.Timedelta(1, "s"),)])  # noqa: E741
    r = frame_of({"ts": "timestamp", "x": "int"}, [(DAY + pd.Timedelta(s, "s"), n) for n, s in enumerate([2, 0, 2, 0])])
    for direction, x in (("backward", 3), ("forward", 0), ("nearest", 3)):
        found = join(how="asof", time="ts", direction=direction).apply(l, r)
        assert found["x"].tolist() == [x]


def outlined(folder: Path, here: pd.DataFrame, there: pd.DataFrame, **section: Any) -> dict[str, str]:
    """The columns that a job with the join would have; both tables are written as files."""
    for name, frame in (("here", here), ("there", there)):
        pq.write_table(BACKEND.table(frame), folder / f"{name}.parquet")
    with_ = {"path": str(folder / "there.parquet"), **section.pop("with", {})}
    tables = [{"op": "join", "with": with_, **section}]
    job = Job.model_validate({"name": "job", "data": {"path": str(folder / "here.parquet")}, "tables": tables})
    inputs = job_inputs.inspect(job)
    return etl.outline(job, inputs.main, inputs.sides, Store(str(folder / "root"))).output()


HERE = frame_of({"k": "int", "at": "timestamp", "x": "float"}, [(1, DAY, 0.5)])
THERE = frame_of({"k": "int", "since": "timestamp", "x": "float", "word": "text"}, [(1, DAY, 1.5, "a")])


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ({"with": {"columns": ["word", "k"]}, "on": ["k"]}, ["word"]),
        ({"with": {"rename": {"x": "y"}}, "on": ["k"]}, ["since", "y", "word"]),
        ({"with": {"columns": ["k", "x"], "rename": {"x": "word"}}, "on": ["k"]}, ["word"]),
        ({"with": {"rename": {"k": "key", "since": "k"}, "columns": ["k", "since"]}, "how": "asof",
          "time": {"here": "at", "there": "k"}}, "both tables have a column 'k'"),
        ({"with": {"columns": ["since", "word"]}, "how": "asof", "time": {"here": "at", "there": "since"}},
         ["since", "word"]),
        ({"with": {"columns": ["since", "word"], "rename": {"since": "at"}}, "how": "asof", "time": "at"}, ["word"]),
        ({"on": ["k"], "how": "semi"}, []),
        ({"on": ["k"], "how": "anti"}, []),
        ({"on": ["k"]}, "there.parquet: both tables have a column 'x'; rename or drop yours before the join, or take "
                        "it under another name: with: {path: ..., rename: {x: other}}"),
        ({"with": {"columns": ["k", "wrd"]}, "on": ["k"]}, "'wrd' was not found in .*there.parquet.*mean 'word'"),
        ({"with": {"rename": {"wrd": "w"}}, "on": ["k"]}, "'wrd' was not found in .*there.parquet.*mean 'word'"),
        ({"with": {"rename": {"word": "since"}}, "on": ["k"]}, "rename makes two columns called 'since'"),
        ({"with": {"columns": ["word"]}, "on": ["k"]}, "'k' was not found in .*there.parquet. Columns: .word."),
        ({"on": ["word"]}, "'word' was not found in the input of tables.0 .join."),
        ({"how": "asof", "time": {"here": "at", "there": "sinc"}}, "'sinc' was not found in .*mean 'since'"),
        ({"how": "asof", "time": {"here": "att", "there": "since"}}, "'att' was not found in .*mean 'at'"),
    ],
)  # fmt: skip
def test_what_is_taken_of_the_other_table(tmp_path: Path, section: dict[str, Any], columns: list[str] | str) -> None:
    if isinstance(columns, list):
        assert list(outlined(tmp_path, HERE, THERE, **section)) == ["k", "at", "x", *columns]
        return
    with pytest.raises(RequestError, match=columns):
        outlined(tmp_path, HERE, THERE, **section)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"how": "asof", "on": ["k"]}, "time: it is needed with how: asof, and only there"),
        ({"on": ["k"], "time": "ts"}, "time: it is needed with how: asof, and only there"),
        ({"on": ["k"], "tolerance": "7d"}, "direction and tolerance are for how: asof"),
        ({"on": ["k"], "direction": "nearest"}, "direction and tolerance are for how: asof"),
        ({}, "on: missing; name the columns that both tables have in common"),
        ({"how": "asof", "time": "ts", "on": ["ts"]}, "time: 'ts' is in on, too; leave it out there"),
        ({"how": "asof", "time": {"here": "a", "there": "b"}, "on": ["b"]}, "time: 'b' is in on, too"),
        ({"how": "asof", "time": "ts", "tolerance": "7 dayz"}, "'7 dayz' is no span of time; write a number and one"),
        ({"how": "asof", "time": "ts", "tolerance": -1}, "greater than or equal to 0"),
        ({"how": "asof", "time": "ts", "tolerance": math.inf}, "finite number"),
        ({"on": ["k"], "with": {"path": "r", "columns": ["k"], "rename": {"x": "y"}}},
         "rename: 'x' is not among the columns that are taken"),
        ({"on": ["k"], "how": "outer"}, "'left', 'inner', 'semi', 'anti' or 'asof'"),
    ],
)  # fmt: skip
def test_refusals_of_keys(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        join(**section)


SIDE = frame_of({"i": "int", "w": "text", "t": "timestamp", "r": "int"}, [(1, "a", DAY, 1)])


@pytest.mark.parametrize(
    ("section", "kinds", "message"),
    [
        ({"on": ["i"]}, {"i": "text"}, "key 'i' is text here and int there; cast one of them before the join"),
        ({"on": ["i"], "how": "anti"}, {"i": "float"}, "key 'i' is float here and int there"),
        ({"on": ["i"]}, {"i": "int", "r": "int"}, "both tables have a column 'r'; rename or drop yours"),
        ({"how": "asof", "time": "t"}, {"t": "int"}, "key 't' is int here and timestamp there"),
        ({"how": "asof", "time": "w"}, {"w": "text"}, "'w' is text; how: asof goes by times or numbers"),
        ({"how": "asof", "time": "t", "tolerance": 7}, {"t": "timestamp"},
         r"tolerance 7 does not fit 't' \(timestamp\); write 7d for timestamps, and a number for numbers"),
        ({"how": "asof", "time": "i", "tolerance": "7d"}, {"i": "int"}, r"tolerance 7d does not fit 'i' \(int\)"),
    ],
)  # fmt: skip
def test_refusals_of_types(section: dict[str, Any], kinds: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=f"join with r.parquet: {message}"):
        join(**section).apply(frame_of(kinds, []), SIDE)


def test_a_null_has_no_time() -> None:
    frame = frame_of({"t": "timestamp"}, [(DAY,), (None,)])
    with pytest.raises(DataError, match="join with r.parquet: the time 't' is null in 1 rows; filter or fill them"):
        join(how="asof", time="t").apply(frame, SIDE)
