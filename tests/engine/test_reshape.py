"""Operations on which rows there are (dedupe, sample, union, pivot) against DuckDB."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.engine.relations import BACKEND, DAY, duck, frame_of, frames, numbered, operation
from treadle.engine.backend import kinds_of
from treadle.engine.operation import ROW_ID
from treadle.engine.relational import Dedupe, Pivot, Sample, Union
from treadle.errors import RequestError

KINDS = {"i": "int", "f": "float", "b": "bool", "w": "text", "t": "timestamp"}
FRAMES = frames(KINDS, most=25, i=[None, 0, 1, 2**53, 2**53 + 1]).map(numbered)


def dedupe(**section: Any) -> Dedupe:
    found = operation(op="dedupe", **section)
    assert isinstance(found, Dedupe)
    return found


@settings(max_examples=15, deadline=None)
@given(
    FRAMES,
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3, unique=True),
    st.sampled_from(["first", "last"]),
    st.sampled_from([None, "i", "f", "t"]),
)
def test_dedupe_keeps_the_first_or_the_last(t: pd.DataFrame, columns: list[str], keep: str, order: str | None) -> None:
    found = dedupe(columns=columns, keep=keep, order=order).apply(t)
    after = "asc" if keep == "first" else "desc"
    # A null is before all.
    by = f"n {after}" if order is None else f"{order} {after} nulls {keep}, n {after}"
    place = f"row_number() over (partition by {', '.join(columns)} order by {by})"
    pd.testing.assert_frame_equal(found, duck(f"select * from t qualify {place} = 1 order by n", t=t))


def test_dedupe_without_columns_takes_all_but_the_id() -> None:
    t = frame_of(
        {ROW_ID: "int", "a": "float", "b": "text"}, [(1, 0.0, "x"), (2, None, None), (3, -0.0, "x"), (4, None, None)]
    )
    assert dedupe().apply(t)[ROW_ID].tolist() == [1, 2]
    assert dedupe(keep="last").apply(t)[ROW_ID].tolist() == [3, 4]
    assert dedupe().resolved(["a", "b"]) == dedupe(columns=["a", "b"])
    assert dedupe(columns=["a"]).resolved(["a", "b"]) == dedupe(columns=["a"])


@pytest.mark.parametrize(("column", "kind"), [("w", "text"), ("b", "bool")])
def test_dedupe_orders_by_times_and_numbers(column: str, kind: str) -> None:
    with pytest.raises(RequestError, match=f"dedupe: order column '{column}' is {kind}; order by a time or a number"):
        dedupe(columns=["i"], order=column).apply(frame_of(KINDS, []))


def test_dedupe_by_no_column_is_no_request() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        dedupe(columns=[])


def sample(**section: Any) -> Sample:
    found = operation(op="sample", **section)
    assert isinstance(found, Sample)
    return found


IDS = pd.DataFrame({ROW_ID: pd.array(range(5000), dtype="Int64"), "x": np.arange(5000) * 0.5})
WORDS = IDS.assign(**{ROW_ID: IDS[ROW_ID].astype("str")})


@pytest.mark.parametrize("t", [IDS, WORDS], ids=["numbers", "texts"])
def test_a_share_is_kept_whatever_the_parts(t: pd.DataFrame) -> None:
    whole = sample(fraction=0.3).apply(t)
    assert len(whole) == pytest.approx(1500, abs=4 * np.sqrt(5000 * 0.3 * 0.7))
    parts = [sample(fraction=0.3).apply(t[a : a + 700].reset_index(drop=True)) for a in range(0, 5000, 700)]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert set(whole[ROW_ID]) < set(sample(fraction=0.31).apply(t)[ROW_ID])
    other = sample(fraction=0.3, seed=8).apply(t)
    assert len(set(whole[ROW_ID]) & set(other[ROW_ID])) == pytest.approx(450, abs=100)
    assert len(sample(fraction=0.9999999999999999).apply(t)) == 5000


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(0, 50), st.lists(st.integers(0, 50), max_size=4), st.randoms())
def test_a_number_of_rows_is_kept_whatever_the_parts(rows: int, size: int, cuts: list[int], random: Any) -> None:
    t = IDS[:size]
    operation = sample(rows=rows)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    parts = [t[a:b].reset_index(drop=True) for a, b in itertools.pairwise(edges)]
    found = [operation.smallest(part) for part in parts]
    random.shuffle(found)
    bound = operation.finish(functools.reduce(lambda a, b: operation.merge([a, b]), found))
    kept = pd.concat([operation.apply(part, bound) for part in parts], ignore_index=True)
    assert len(kept) == min(rows, size)
    pd.testing.assert_frame_equal(kept, operation.apply(t))
    assert set(operation.apply(t)[ROW_ID]) <= set(sample(rows=rows + 1).apply(t)[ROW_ID])


@pytest.mark.parametrize("section", [{}, {"fraction": 0.5, "rows": 10}])
def test_a_sample_is_a_share_or_a_number(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"sample takes either fraction .0.1. or rows .10000."):
        sample(**section)


@pytest.mark.parametrize("section", [{"fraction": 0}, {"fraction": 1}, {"rows": 0}, {"rows": 5, "seed": -1}])
def test_bounds_of_a_sample(section: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="greater than|less than"):
        sample(**section)


def union(**section: Any) -> Union:
    found = operation(op="union", **{"with": {"path": "r.parquet"}, **section})
    assert isinstance(found, Union)
    return found


@settings(max_examples=15, deadline=None)
@given(st.data(), st.dictionaries(st.sampled_from("abcd"), st.sampled_from(sorted({*KINDS.values()})), min_size=1))
def test_a_union_goes_by_names(data: st.DataObject, here: dict[str, str]) -> None:
    """int and float of one name are float together; what one lacks is null."""
    names = data.draw(st.lists(st.sampled_from("abcde"), min_size=1, unique=True))
    there = {name: here.get(name, "text") for name in names}
    for name in names:
        if there[name] in ("int", "float") and data.draw(st.booleans()):
            there[name] = "float" if there[name] == "int" else "int"
    l, r = (data.draw(frames(kinds, most=6)) for kinds in (here, there))  # noqa: E741
    kinds = union(fill=True).kinds(here, there)
    empty = BACKEND.empty(kinds)
    found = pd.concat([union(fill=True).apply(frame, empty) for frame in (l, r)], ignore_index=True)
    assert kinds_of(found) == kinds
    expected = duck("select * from l union all by name select * from r", l=l, r=r)
    pd.testing.assert_frame_equal(found, expected)


def test_a_union_keeps_the_id() -> None:
    t = frame_of({ROW_ID: "int", "a": "int"}, [(7, 1)])
    found = union(fill=True).apply(t, BACKEND.empty({"b": "text", "a": "float"}))
    pd.testing.assert_frame_equal(found, frame_of({ROW_ID: "int", "b": "text", "a": "float"}, [(7, None, 1.0)]))


@pytest.mark.parametrize(
    ("there", "fill", "message"),
    [
        (
            {"a": "int"},
            False,
            "it lacks 'b'; select the same columns on both sides .with: .columns: .*, or set fill: true",
        ),
        ({"a": "int", "b": "text", "c": "int"}, False, "only it has 'c'; select the same columns"),
        ({"a": "int", "c": "int"}, False, "it lacks 'b', and only it has 'c'; select the same columns"),
        ({"a": "text", "b": "text"}, True, "column 'a' is int here and text there; cast it before the union"),
        ({"a": "bool", "b": "text"}, False, "column 'a' is int here and bool there; cast it before the union"),
    ],
)
def test_refusals_of_a_union(there: dict[str, str], fill: bool, message: str) -> None:
    with pytest.raises(RequestError, match=f"union with r.parquet: {message}"):
        union(fill=fill).kinds({"a": "int", "b": "text"}, there)


def pivot(**section: Any) -> Pivot:
    found = operation(op="pivot", **section)
    assert isinstance(found, Pivot)
    return found


LEVELS: dict[str, list[Any]] = {"i": [1, 2**53 + 1, 5], "f": [0.25, -1], "b": [True, False], "w": ["a", "", "z"]}
SQL = {
    "sum": "sum({}) {}", "mean": "avg({}) {}", "min": "min({}) {}", "max": "max({}) {}", "count": "count({}) {}",
    "nunique": "count(distinct {}) {}", "median": "median({}) {}", "std": "stddev_samp({}) {}",
}  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(
    frames({**KINDS, "x": "float", "v": "int"}, most=25, x=[None, 0.25, -1.5, 3.0], v=[None, 1, 2, -7]).map(numbered),
    st.sampled_from(sorted(LEVELS)),
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=2, unique=True),
    st.sampled_from(sorted(SQL)),
    st.sampled_from(["x", "v"]),
    st.lists(st.integers(0, 25), max_size=3),
)
def test_a_pivot_is_an_aggregate_a_level(
    t: pd.DataFrame, names: str, by: list[str], function: str, values: str, cuts: list[int]
) -> None:
    made = pivot(by=by, names=names, levels=LEVELS[names], values=values, function=function, prefix="of_")
    edges = [0, *sorted(min(cut, len(t)) for cut in cuts), len(t)]
    parts = [t[a:b].reset_index(drop=True) for a, b in itertools.pairwise(edges)]
    found = made.finish(made.merge([made.partial(part) for part in parts]))
    type_ = "::bigint" if function == "sum" and values == "v" else ""
    selected = [
        "("
        + SQL[function].format(values, f"filter (where {names} = {literal(level)})")
        + f'){type_} as "of_{str(level).lower()}"'
        for level in LEVELS[names]
    ]
    keys = ", ".join(by)
    order = ", ".join(f"{key} nulls last" for key in by)
    expected = duck(f"select {keys}, {', '.join(selected)} from t group by {keys} order by {order}", t=t)
    pd.testing.assert_frame_equal(found, expected)


def literal(level: Any) -> str:
    return f"'{level}'" if isinstance(level, str) else str(level).lower()


def test_a_pivot_without_values_counts_rows() -> None:
    t = frame_of({"k": "text", "day": "int"}, [("a", 1), ("a", 1), ("b", 2), (None, 3), ("a", None)])
    made = pivot(by=["k"], names="day", levels=[2, 1], function="count")
    found = made.finish(made.partial(t))
    pd.testing.assert_frame_equal(
        found, frame_of({"k": "text", "2": "int", "1": "int"}, [("a", 0, 2), ("b", 1, 0), (None, 0, 0)])
    )


@pytest.mark.parametrize(
    ("names", "level", "message"),
    [
        ("i", "1", "level '1' is no value of column 'i', which is int; write levels as the column has them"),
        ("i", 1.5, "level 1.5 is no value of column 'i', which is int; write"),
        ("i", True, "level true is no value of column 'i', which is int; write"),
        ("f", "1", "level '1' is no value of column 'f', which is float; write"),
        ("b", 1, "level 1 is no value of column 'b', which is bool; write"),
        ("w", 1, "level 1 is no value of column 'w', which is text; write"),
        ("t", "2024-01-01", "level '2024-01-01' is no value of column 't', which is timestamp; cast it to text first"),
    ],
)
def test_levels_are_values_of_their_column(names: str, level: Any, message: str) -> None:
    with pytest.raises(RequestError, match=f"pivot: {message}"):
        pivot(by=["w"], names=names, levels=[level], function="count").partial(
            frame_of(KINDS, [(1, 1.0, True, "a", DAY)])
        )


def test_a_pivot_names_the_column_that_it_cannot_add() -> None:
    with pytest.raises(
        RequestError, match="pivot: sum needs numbers, and column 'w' is text; cast it first, or use count"
    ):
        pivot(by=["i"], names="b", levels=[True], values="w").partial(frame_of(KINDS, []))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"function": "sum"}, "values: missing; only function: count works without it"),
        (
            {"function": "quantile", "values": "x"},
            "function: quantile is not for pivot; use median, or an aggregate a level",
        ),
        (
            {"levels": ["k", "a"], "values": "x"},
            "levels: there would be two columns 'k'; leave one out, or set a prefix",
        ),
        ({"levels": ["a", "b", "a"], "values": "x"}, "there would be two columns 'a'"),
        ({"levels": [], "values": "x"}, "at least 1 item"),
        ({"by": [], "values": "x"}, "at least 1 item"),
    ],
)
def test_refusals_of_a_pivot(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pivot(**{"by": ["k"], "names": "w", "levels": ["a"], **section})
