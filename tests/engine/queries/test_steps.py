"""Operations on rows as queries make of a frame just what the operations make of it on the host."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.relations import frames, operation
from treadle.engine.backend import Backend
from treadle.engine.operation import ROW_ID, ROW_ORDER
from treadle.engine.preparing import apply_steps
from treadle.engine.program import Step

KINDS = {ROW_ID: "int", "k": "int", "w": "text", "x": "float", "p": "bool", "t": "timestamp"}
SIDE = {"k": "int", "w": "text", "z": "float", "name": "text"}


class Strict(Backend):
    """A backend for GPUs on which nothing may be left to the host."""

    def fell_back(self, what: str, why: str) -> None:
        raise AssertionError(f"{what}: {why}")


CPU, CUDA = Backend(), Strict("cuda")
KEYS = {"k": [None, 0, 1, 2], "w": [None, "", "a"], ROW_ID: list(range(20))}
OPERATIONS: list[dict[str, Any]] = [
    {"op": "derive", "name": "y", "sql": "x + k"},
    {"op": "derive", "name": "k", "sql": "coalesce(k, 7) * 2"},
    {"op": "derive", "name": "late", "sql": "t > '2024-02-28' and not p"},
    {"op": "derive", "name": "one", "sql": "1"},
    {"op": "derive", "name": "two", "sql": "1 + 1"},
    {"op": "filter", "sql": "1 > 0"},
    {"op": "filter", "sql": "1 > 0 and 2 > 3 or k = 1"},
    {"op": "derive", "name": "day", "sql": "CAST(t AS DATE)"},
    {"op": "filter", "sql": "k > 1 or w = 'a'"},
    {"op": "filter", "sql": "p"},
    {"op": "filter", "sql": "not (x < 0)"},
    {"op": "cast", "columns": {"k": "float", "p": "int"}},
    {"op": "cast", "columns": {"k": "text", "p": "text"}},
    {"op": "cast", "columns": {"k": "bool", "x": "bool", "t": "date"}},
    {"op": "select", "columns": ["t", "k"]},
    {"op": "drop", "columns": ["w", "x"]},
    {"op": "rename", "columns": {"k": "w", "w": "k"}},
    {"op": "dedupe", "columns": ["k"]},
    {"op": "dedupe", "columns": ["w", "p"], "keep": "last"},
    {"op": "dedupe", "columns": ["k"], "keep": "first", "order": "x"},
    {"op": "dedupe", "columns": ["w"], "keep": "last", "order": "t"},
    {"op": "dedupe", "columns": ["x"]},
]


def both(step: Step, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the host makes of it, and what queries do."""
    return apply_steps(CPU, [(step, side)], frame), apply_steps(CUDA, [(step, side)], frame)


@pytest.mark.parametrize("section", OPERATIONS, ids=lambda s: f"{s['op']} {s.get('sql', s.get('columns'))}")
@settings(max_examples=10, deadline=None)
@given(frame=frames(KINDS, **KEYS))
def test_operations_on_rows(section: dict[str, Any], frame: pd.DataFrame) -> None:
    expected, found = both(Step(0, operation(**section)), frame)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("how", ["left", "inner", "semi", "anti"])
@pytest.mark.parametrize("on", [["k"], ["k", "w"]])
@settings(max_examples=10, deadline=None)
@given(frame=frames(KINDS, **KEYS), side=frames(SIDE, **KEYS))
def test_joins_keep_the_order_of_the_rows(how: str, on: list[str], frame: pd.DataFrame, side: pd.DataFrame) -> None:
    """Also of those of the other table, where a row has several."""
    side = side if len(on) == 2 else side.drop(columns="w")
    step = Step(0, operation(op="join", on=on, how=how, **{"with": {"path": "side"}}))
    expected, found = both(step, frame, side)
    pd.testing.assert_frame_equal(found, expected)


@settings(max_examples=20, deadline=None)
@given(
    frame=frames(KINDS, **KEYS),
    by=st.sampled_from([["k"], ["w", "p"], ["x"], ["t"]]),
    function=st.sampled_from(["sum", "count", "min", "max", "mean", "std", "nunique", "median"]),
)
def test_groups_beside_the_rows(frame: pd.DataFrame, by: list[str], function: str) -> None:
    aggregations = {"k2": {"function": function, "column": "x"}, "n": {"function": "count"}}
    aggregate: Any = operation(op="aggregate", by=by, broadcast=True, aggregations=aggregations)
    table = aggregate.finish(aggregate.partial(frame))
    # From a table of all groups, and where all rows of a group lie in the partition.
    for step, side in ((Step(0, aggregate, side="side"), table), (Step(0, aggregate), None)):
        expected, found = both(step, frame, side)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(frame=frames({ROW_ID: "int", ROW_ORDER: "int", "k": "int", "x": "float"}, **{ROW_ORDER: list(range(20))}))
def test_a_union_takes_on_the_columns_of_both(frame: pd.DataFrame) -> None:
    kinds = (("k", "float"), ("x", "float"), ("w", "text"), ("t", "timestamp"))
    step = Step(0, operation(op="union", fill=True, **{"with": {"path": "other"}}), kinds=kinds)
    expected, found = both(step, frame, CPU.empty(dict(kinds)))
    pd.testing.assert_frame_equal(found, expected)
