"""What a partition contributes to an aggregate is the same from queries as from the host's kernels."""

from __future__ import annotations

from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.queries.test_steps import CPU, CUDA
from tests.engine.relations import frames, operation
from treadle.engine.backend import Backend
from treadle.engine.operation import ROW_ORDER
from treadle.engine.preparing import contribution

KINDS = {"k": "int", "w": "text", "x": "float", "p": "bool", "t": "timestamp", "i": "int", ROW_ORDER: "int"}
POOLS = {"k": [None, 0, 1, 2], "i": [None, -3, 2**62, 5], ROW_ORDER: list(range(20))}
FUNCTIONS = {
    "i": ["sum", "mean", "std", "min", "max", "count", "nunique", "mode", "median"],
    "x": ["sum", "mean", "std", "min", "max", "count", "nunique", "mode", "median"],
    "p": ["sum", "mean", "std", "min", "max", "count", "nunique", "mode"],
    "w": ["min", "max", "count", "nunique", "mode"],
    "t": ["min", "max", "count", "nunique", "mode"],
}


def aggregate(by: list[str], **more: Any) -> Any:
    wanted = {f"{f} {c}": {"function": f, "column": c} for c, functions in FUNCTIONS.items() for f in functions}
    wanted["q"] = {"function": "quantile", "q": 0.3, "column": "x"}
    wanted |= {f"{end} {c}": {"function": end, "column": c} for end in ("first", "last") for c in FUNCTIONS}
    return operation(op="aggregate", by=by, aggregations={**wanted, "n": {"function": "count"}}, **more)


@settings(max_examples=12, deadline=None)
@given(
    frame=frames(KINDS, **POOLS),
    by=st.sampled_from([["k"], ["w", "p"], ["x"], ["t", "k"]]),
    order=st.sampled_from([None, "t", "x", "i"]),
    cut=st.integers(0, 14),
    placed=st.booleans(),
)
def test_partials_finish_and_merge_to_the_same(
    frame: pd.DataFrame, by: list[str], order: str | None, cut: int, placed: bool
) -> None:
    frame = frame.assign(**{ROW_ORDER: frame[ROW_ORDER].index[::-1]}).astype({ROW_ORDER: "Int64"})
    frame = frame if placed else frame.drop(columns=ROW_ORDER)
    wanted = aggregate(by, order=order)
    expected = wanted.finish(wanted.partial(frame))
    found = wanted.finish(contribution(CUDA, wanted, frame, "here"))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12)
    # Some partitions may have been gathered by a device, and others by the host.
    parts = [
        contribution(CUDA, wanted, frame.iloc[:cut], "here"),
        wanted.partial(frame.iloc[cut:].reset_index(drop=True)),
    ]
    pd.testing.assert_frame_equal(wanted.finish(wanted.merge(parts)), expected, rtol=1e-12)


@settings(max_examples=10, deadline=None)
@given(frame=frames(KINDS, **POOLS))
def test_a_pivot_gathers_an_aggregate_a_level(frame: pd.DataFrame) -> None:
    pivot: Any = operation(op="pivot", by=["k"], names="w", levels=["", "a"], values="x", function="mean", prefix="of ")
    found = pivot.finish(contribution(CUDA, pivot, frame, "here"))
    pd.testing.assert_frame_equal(found, pivot.finish(contribution(CPU, pivot, frame, "here")), rtol=1e-12)


def test_what_has_no_query_is_the_host_s_and_told(told: list[str]) -> None:
    sketched = {"s": {"function": "approx_nunique", "column": "x"}}
    wanted: Any = operation(op="aggregate", by=["k"], aggregations=sketched)
    frame = pd.DataFrame({name: CPU.empty(KINDS)[name] for name in KINDS})
    found = wanted.finish(contribution(Backend("cuda"), wanted, frame, "tables.4 (aggregate)"))
    pd.testing.assert_frame_equal(found, wanted.finish(wanted.partial(frame)))
    assert told == ["tables.4 (aggregate): on the host, since approx_nunique of groups is the host's"]
