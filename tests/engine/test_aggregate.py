"""Aggregates: any split of a frame into parts, merged in any order, gives what pandas gives for the whole."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.engine.relations import duck, frames, numbered
from treadle.engine.backend import DTYPES, kinds_of
from treadle.engine.operation import ROW_ORDER
from treadle.engine.relational.aggregate import Aggregate
from treadle.errors import RequestError

KINDS = {"text": "text", "whole": "int", "flag": "bool", "number": "float", "time": "timestamp", "nothing": "float"}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from([None, "", "a", "b", "B", "ä", "1"]),
    "whole": st.none() | st.integers(-3, 3) | st.integers(-(2**53), 2**53),
    "flag": st.sampled_from([None, True, False]),
    "number": st.sampled_from([None, 0.0, 0.5, -1e6]) | st.floats(-1e6, 1e6, allow_subnormal=False),
    "time": st.none() | st.integers(0, 5).map(lambda n: pd.Timestamp("2024-02-28") + pd.Timedelta(n, "D")),
    "nothing": st.none(),
}
ROWS = st.lists(st.tuples(*VALUES.values()), max_size=25)
KEYS = st.lists(st.sampled_from(["text", "whole", "flag", "number", "time"]), min_size=1, max_size=3, unique=True)
FUNCTIONS = {
    "sum": ["whole", "flag", "number", "nothing"],
    "mean": ["whole", "flag", "number", "nothing"],
    "std": ["whole", "flag", "number", "nothing"],
    **{function: list(KINDS) for function in ("min", "max", "count", "nunique")},
}
EVERYTHING = {f"{f} of {c}": {"function": f, "column": c} for f, columns in FUNCTIONS.items() for c in columns}
SOME = st.lists(st.sampled_from(sorted(EVERYTHING)), min_size=1, max_size=5, unique=True).map(
    lambda names: {name: EVERYTHING[name] for name in names}
)


def frame_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = zip(*rows, strict=True) if rows else [[]] * len(KINDS)
    return pd.DataFrame(
        {name: pd.Series(list(c), dtype=DTYPES[KINDS[name]]) for name, c in zip(KINDS, columns, strict=True)}
    )


def aggregate(
    by: list[str], aggregations: dict[str, Any], broadcast: bool = False, order: str | None = None
) -> Aggregate:
    section = {"op": "aggregate", "by": by, "aggregations": aggregations, "broadcast": broadcast, "order": order}
    return Aggregate.model_validate(section)


def group_table(operation: Aggregate, parts: list[pd.DataFrame]) -> pd.DataFrame:
    return operation.finish(operation.merge([operation.partial(part) for part in parts]))


def expected_table(frame: pd.DataFrame, operation: Aggregate) -> pd.DataFrame:
    """pandas on the whole frame, one column at a time."""
    groups = frame.groupby(list(operation.by), dropna=False, sort=True)
    columns = {}
    for name, a in operation.aggregations.items():
        if a.column is None:
            columns[name] = groups.size()
        elif a.function == "sum":
            columns[name] = groups[a.column].sum(min_count=1)
        else:
            columns[name] = getattr(groups[a.column], a.function)()
    return pd.DataFrame(columns).reset_index()


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    for name in found.columns:
        numeric = kinds_of(found[[name]])[name] in ("int", "float")
        if numeric and expected[name].dtype.kind in "iuf":
            one, other = found[name].astype("float64"), expected[name].astype("float64")
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-6 if name.startswith("std") else 1e-9)
        else:
            pd.testing.assert_series_equal(found[name], expected[name], check_dtype=False, check_names=False)


def split_at(frame: pd.DataFrame, cuts: list[int]) -> list[pd.DataFrame]:
    edges = [0, *sorted(min(cut, len(frame)) for cut in cuts), len(frame)]
    return [frame.iloc[a:b].reset_index(drop=True) for a, b in itertools.pairwise(edges)]


@settings(max_examples=30, deadline=None)
@given(ROWS, KEYS, SOME, st.lists(st.integers(0, 25), max_size=4))
def test_any_split_merges_to_what_pandas_gives_for_the_whole(
    rows: list[tuple[Any, ...]], by: list[str], some: dict[str, Any], cuts: list[int]
) -> None:
    frame = frame_of(rows)
    operation = aggregate(by, {**some, "n": {"function": "count"}})
    found = group_table(operation, split_at(frame, cuts))
    if len(frame):
        assert_same(found, expected_table(frame, operation))
    pd.testing.assert_series_equal(found.dtypes, group_table(operation, [frame.iloc[:0]]).dtypes)
    assert set(map(str, found.dtypes)) <= set(map(str, DTYPES.values()))


@settings(max_examples=15, deadline=None)
@given(ROWS, SOME, st.permutations(range(5)), st.integers(1, 4))
def test_the_order_and_the_tree_of_merges_do_not_matter(
    rows: list[tuple[Any, ...]], some: dict[str, Any], order: list[int], first: int
) -> None:
    operation = aggregate(["text", "flag"], some)
    partials = [operation.partial(part) for part in split_at(frame_of(rows), [5, 10, 15, 20])]
    flat = operation.finish(operation.merge(partials))
    shuffled = [partials[i] for i in order]
    left = functools.reduce(lambda a, b: operation.merge([a, b]), shuffled)
    tree = operation.merge([operation.merge(shuffled[:first]), operation.merge(shuffled[first:])])
    for other in (left, tree):
        assert_same(operation.finish(other), flat)


@settings(max_examples=25, deadline=None)
@given(ROWS, KEYS)
def test_broadcast_adds_the_group_to_every_row_in_its_place(rows: list[tuple[Any, ...]], by: list[str]) -> None:
    frame = frame_of(rows).assign(n=lambda f: np.arange(len(f)))
    operation = aggregate(by, {"size": {"function": "count"}, "largest": {"function": "max", "column": "whole"}}, True)
    out = operation.apply(frame, group_table(operation, [frame]))
    pd.testing.assert_frame_equal(out[list(frame.columns)], frame)
    groups = frame.groupby(by, dropna=False)
    np.testing.assert_array_equal(out["size"].to_numpy("int64"), groups["n"].transform("size"))
    pd.testing.assert_series_equal(out["largest"], groups["whole"].transform("max"), check_names=False)


def test_a_broadcast_column_replaces_one_of_its_name() -> None:
    frame = pd.DataFrame({"k": ["a", "b", "a"], "x": [1.0, 2.0, 4.0]})
    operation = aggregate(["k"], {"x": {"function": "mean", "column": "x"}}, True)
    assert operation.apply(frame, group_table(operation, [frame])).x.tolist() == [2.5, 2.0, 2.5]


def test_infinities_are_values() -> None:
    frame = pd.DataFrame({"k": [1, 1, 2, 2, 3], "x": [np.inf, 1.0, np.inf, -np.inf, 5.0]})
    operation = aggregate(["k"], {f: {"function": f, "column": "x"} for f in ("sum", "mean", "std", "max")})
    more = pd.DataFrame({"k": [2], "x": [1.0]})
    # In the last, both infinities meet in one part, and the other adds a number to what came of them.
    for parts in ([frame], [frame[::2], frame[1::2]], [frame, more]):
        with np.errstate(invalid="ignore"):
            found = group_table(operation, parts)
        assert found["mean"].tolist() == pytest.approx([np.inf, np.nan, 5.0], nan_ok=True)
        assert found["sum"].tolist() == pytest.approx([np.inf, np.nan, 5.0], nan_ok=True)
        assert found["std"].isna().all()
        assert found["max"].tolist() == [np.inf, np.inf, 5.0]


def test_a_large_offset_leaves_the_deviation_exact() -> None:
    x = 1e9 + np.random.default_rng(2).normal(size=3000)
    frame = pd.DataFrame({"k": np.arange(3000) % 3, "x": x})
    found = group_table(aggregate(["k"], {"s": {"function": "std", "column": "x"}}), split_at(frame, [7, 900, 1800]))
    np.testing.assert_allclose(found["s"], [np.std(x[i::3], ddof=1) for i in range(3)], rtol=1e-6)


KINDS_OF = {"i": "int", "f": "float", "b": "bool", "w": "text", "t": "timestamp"}
FRAMES = frames({**KINDS_OF, "x": "float"}, most=25, x=[None, 0.25, -1.5, 3.0, 1e300]).map(numbered)
CUTS = st.lists(st.integers(0, 25), max_size=3)
SOME_KEYS = st.lists(st.sampled_from(sorted(KINDS_OF)), min_size=1, max_size=2, unique=True)


def by_duckdb(t: pd.DataFrame, by: list[str], columns: dict[str, str]) -> pd.DataFrame:
    """The groups of a table; `columns` are the outcomes' names and expressions."""
    selected = ", ".join(f'{sql} as "{name}"' for name, sql in columns.items())
    order = ", ".join(f"{key} nulls last" for key in by)
    return duck(f"select {', '.join(by)}, {selected} from t group by {', '.join(by)} order by {order}", t=t)


@settings(max_examples=8, deadline=None)
@given(FRAMES, SOME_KEYS, st.sampled_from([None, "i", "f", "t"]), CUTS, st.randoms())
def test_first_and_last_follow_the_order(
    t: pd.DataFrame, by: list[str], order: str | None, cuts: list[int], random: Any
) -> None:
    outputs = {f"{f} of {c}": {"function": f, "column": c} for f in ("first", "last") for c in KINDS_OF}
    operation = aggregate(by, outputs, order=order)
    lies = "n" if order is None else f"{order}, n"
    known = "" if order is None else f" and {order} is not null"
    columns = {
        f"{f} of {c}": f"{f}({c} order by {lies}) filter (where {c} is not null{known})"
        for f in ("first", "last")
        for c in KINDS_OF
    }
    expected = by_duckdb(t, by, columns)
    pd.testing.assert_frame_equal(group_table(operation, split_at(t, cuts)), expected)
    # Exchanged rows bring their places along: then the order of the parts, and in them, is of no account.
    placed = t.assign(**{ROW_ORDER: t["n"] + 5})
    shuffled = placed.sample(frac=1, random_state=random.randrange(2**32), ignore_index=True)
    parts = split_at(shuffled, cuts)
    pd.testing.assert_frame_equal(group_table(operation, parts), expected)
    tree = operation.merge(
        [operation.merge([operation.partial(part) for part in parts[:2]])]
        + [operation.partial(part) for part in parts[2:]]
    )
    pd.testing.assert_frame_equal(operation.finish(tree), expected)


@settings(max_examples=10, deadline=None)
@given(FRAMES, SOME_KEYS, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), CUTS)
def test_medians_and_quantiles_are_linear_between_two_values(
    t: pd.DataFrame, by: list[str], q: float, cuts: list[int]
) -> None:
    outputs = {f"median of {c}": {"function": "median", "column": c} for c in "ixb"}
    outputs |= {f"quantile of {c}": {"function": "quantile", "column": c, "q": q} for c in "ixb"}
    number = {"i": "i::double", "x": "x", "b": "b::int::double"}
    columns = {name: f"quantile_cont({number[name[-1]]}, {q if name[0] == 'q' else 0.5})" for name in outputs}
    found = group_table(aggregate(by, outputs), split_at(t, cuts))
    pd.testing.assert_frame_equal(found, by_duckdb(t, by, columns), rtol=1e-12, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(FRAMES, SOME_KEYS, CUTS)
def test_the_mode_is_the_most_frequent_value_and_the_smallest_of_several(
    t: pd.DataFrame, by: list[str], cuts: list[int]
) -> None:
    outputs = {f"mode of {c}": {"function": "mode", "column": c} for c in "ifbwt"}
    found = group_table(aggregate(by, outputs), split_at(t, cuts))
    same = " and ".join(f"o.{key} is not distinct from t.{key}" for key in by)
    rows = "select {0} from t as o where {1} and {0} is not null group by {0} order by count(*) desc, {0} limit 1"
    columns = {name: f"({rows.format(a['column'], same)})" for name, a in outputs.items()}
    pd.testing.assert_frame_equal(found, by_duckdb(t, by, columns))


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([-math.inf, 5.0], 0.5, -math.inf),
        ([-math.inf, 5.0], 0.1, -math.inf),
        ([5.0, math.inf], 0.1, math.inf),
        ([5.0, math.inf], 0.0, 5.0),
        ([math.inf, math.inf], 0.5, math.inf),
        ([-math.inf, math.inf], 0.5, math.nan),
        ([-1.5e308, 1.5e308], 0.5, 0.0),
        ([7.0], 0.3, 7.0),
        ([], 0.3, math.nan),
    ],
)
def test_quantiles_beside_infinities(values: list[float], q: float, expected: float) -> None:
    frame = pd.DataFrame({"k": 1, "x": [*values, math.nan]})
    found = group_table(aggregate(["k"], {"q": {"function": "quantile", "column": "x", "q": q}}), [frame])
    assert found["q"].tolist() == pytest.approx([expected], nan_ok=True)


def test_quantiles_of_many_rows_are_numpys() -> None:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"k": rng.integers(0, 3, 2000), "x": rng.integers(0, 400, 2000) / 8})
    for q in (0.0, 0.123, 0.5, 0.999, 1.0):
        operation = aggregate(["k"], {"q": {"function": "quantile", "column": "x", "q": q}})
        found = group_table(operation, split_at(frame, [100, 900, 901]))
        expected = [np.quantile(frame["x"][frame["k"] == k], q) for k in range(3)]
        np.testing.assert_allclose(found["q"], expected, rtol=1e-13)


@settings(max_examples=5, deadline=None)
@given(FRAMES, SOME_KEYS)
def test_groups_in_one_frame_need_no_group_table(t: pd.DataFrame, by: list[str]) -> None:
    """What is done where all rows of a group lie together already."""
    outputs: dict[str, Any] = {
        f"{f} of {c}": {"function": f, "column": c}
        for f in ("nunique", "mode", "first", "max", "count")
        for c in KINDS_OF
    }
    outputs |= {f"{f} of x": {"function": f, "column": "x"} for f in ("sum", "mean", "std", "median")}
    operation = aggregate(by, outputs, True)
    pd.testing.assert_frame_equal(operation.apply(t), operation.apply(t, group_table(operation, [t])))


MANY: dict[str, tuple[str, Any]] = {
    "text": ("text", lambda n: np.array([f"value {i}" for i in n], dtype=object)),
    "whole": ("int", lambda n: n - 2**62),
    "number": ("float", lambda n: n / 7),
    "time": ("timestamp", lambda n: n.astype("datetime64[us]")),
    "flag": ("bool", lambda n: n % 2 == 0),
}


@pytest.mark.parametrize("column", MANY)
def test_estimated_distinct_values_are_as_near_as_stated(column: str) -> None:
    """Groups of 1 to 30,000 values, each several times, beside what DuckDB counts; parts make no difference at all."""
    kind, values = MANY[column]
    rng = np.random.default_rng(11)
    sizes = np.array([1, 7, 60, 500, 3000, 30_000])
    numbers = np.concatenate([np.tile(np.arange(size), 3 if size < 10_000 else 1) for size in sizes])
    keys = np.concatenate([np.full(size * (3 if size < 10_000 else 1), i) for i, size in enumerate(sizes)])
    place = rng.permutation(len(keys))
    frame = pd.DataFrame(
        {
            "k": pd.array(keys[place], dtype="Int64"),
            "v": pd.Series(values(numbers[place]), dtype=DTYPES[kind]).mask(rng.random(len(keys)) < 0.1),
        }
    )
    frame = pd.concat([frame, pd.DataFrame({"k": [99, 99], "v": frame["v"][:2].mask([True, True])})], ignore_index=True)
    frame = frame.astype({"k": "Int64", "v": DTYPES[kind]})
    operation = aggregate(["k"], {"v": {"function": "approx_nunique", "column": "v"}})
    found = operation.finish(operation.partial(frame))
    expected = duck("select k, count(distinct v) as v from t group by k order by k", t=frame)["v"].to_numpy("int64")
    assert expected[-1] == 0
    apart = np.abs(found["v"].to_numpy("int64") - expected)
    # 99.9 % of estimates lie within 3.3 standard errors of 1.6 %; the hashes are fixed, so that these six do always.
    assert (apart <= np.ceil(3.3 * 0.0163 * expected)).all(), (found, expected)
    assert (apart[expected <= 7] == 0).all()
    for cuts in ([5, 20_000], [100, 200, 300, 30_000]):
        pd.testing.assert_frame_equal(group_table(operation, split_at(frame, cuts)), found)
        local = aggregate(["k"], {"n": {"function": "approx_nunique", "column": "v"}}, True).apply(frame)
        assert local.groupby("k")["n"].first().tolist() == found["v"].tolist()


def test_refusals() -> None:
    with pytest.raises(RequestError, match="'m': mean needs numbers, and column 'text' is text; cast it first, or use"):
        aggregate(["flag"], {"m": {"function": "mean", "column": "text"}}).partial(frame_of([]))
    with pytest.raises(RequestError, match="'m': median needs numbers, and column 'time' is timestamp; cast it first"):
        aggregate(["flag"], {"m": {"function": "median", "column": "time"}}).partial(frame_of([]))
    first = {"f": {"function": "first", "column": "whole"}}
    for column, kind in (("text", "text"), ("flag", "bool")):
        with pytest.raises(RequestError, match=f"aggregate: order column '{column}' is {kind}; order by a time or a"):
            aggregate(["flag"], first, order=column).partial(frame_of([]))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"s": {"function": "sum"}}, "column: missing; only count works without one, not sum"),
        ({"k": {"function": "count"}}, "'k' is there twice; every key and outcome needs a name of its own"),
        ({"q": {"function": "quantile", "column": "x"}}, "q: it is needed with function: quantile, and only there"),
        (
            {"q": {"function": "median", "column": "x", "q": 0.5}},
            "q: it is needed with function: quantile, and only there",
        ),
        ({"q": {"function": "quantile", "column": "x", "q": 1.5}}, "less than or equal to 1"),
        ({}, "at least 1 item"),
    ],
)
def test_refusals_of_keys(outputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        aggregate(["k"], outputs)


def test_an_order_is_for_first_and_last() -> None:
    with pytest.raises(ValidationError, match="order: it is what first and last go by, and neither is asked for"):
        aggregate(["k"], {"n": {"function": "count"}}, order="ts")
