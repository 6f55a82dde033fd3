"""Windows as queries give what the host's kernels give, rows in their order."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.queries.test_steps import CPU, both
from tests.engine.relations import operation
from tests.engine.test_window import FRAMES, KEYS
from treadle.engine.backend import Backend
from treadle.engine.preparing import apply_steps
from treadle.engine.program import Step
from treadle.errors import DataError

SHAPES: dict[str, dict[str, Any]] = {
    "rolling": {"rows": 3},
    "rolling before": {"rows": 2, "current": False},
    "cum": {},
    "cum before": {"current": False},
}
SUMS = {"sum": ["x", "i", "b", "f"], "mean": ["x", "i", "b"], "count": ["x", "w", "t", None]}
EXTREMES = {"min": ["x", "i", "f"], "max": ["x", "i", "f"]}


def outputs_of(shape: str) -> dict[str, Any]:
    """All that there is of a shape."""
    kind = shape.split()[0]
    columns = {**SUMS, **(EXTREMES if kind == "rolling" else {})}
    return {
        f"{function} {column}": {
            "function": f"{kind}_{function}",
            **({} if column is None else {"column": column}),
            **SHAPES[shape],
        }
        for function, names in columns.items()
        for column in names
    }


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=15, deadline=None)
@given(frame=FRAMES, by=KEYS, order=st.sampled_from([None, "ts"]))
def test_sums_means_counts_and_extremes(shape: str, frame: pd.DataFrame, by: list[str], order: str | None) -> None:
    step = Step(0, operation(op="window", by=by, order=order, outputs=outputs_of(shape)))
    expected, found = both(step, frame)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12, atol=1e-12)


SPANS: dict[str, Any] = {
    f"{function} {column} {'to' if current else 'before'}": {
        "function": f"rolling_{function}",
        **({} if column is None else {"column": column}),
        "current": current,
    }
    for function, columns in {**SUMS, **EXTREMES, "mean": ["x", "i"], "sum": ["x", "i", "b"]}.items()
    for column in columns
    for current in (True, False)
}


@pytest.mark.parametrize(("order", "span"), [("ts", "3s"), ("ts", "1us"), ("ts", "2d"), ("n", 2.5), ("n", 3)])
@settings(max_examples=15, deadline=None)
@given(frame=FRAMES, by=KEYS)
def test_spans(order: str, span: Any, frame: pd.DataFrame, by: list[str]) -> None:
    """Without the numbers whose sums lose what they are added to, which Polars carries from window to window."""
    frame = frame.assign(x=frame["x"].where(frame["x"] < 1e9), i=frame["i"].where(frame["i"] < 10))
    frame = frame.assign(n=(frame["n"] // 2) * 3)
    outputs = {name: {**output, "span": span} for name, output in SPANS.items()}
    step = Step(0, operation(op="window", by=by, order=order, outputs=outputs))
    expected, found = both(step, frame)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-9)


OF_ORDER = ("row_number", "rank", "dense_rank", "time_since_last")


@settings(max_examples=30, deadline=None)
@given(frame=FRAMES, by=KEYS, offset=st.integers(1, 3))
def test_neighbours_and_places(frame: pd.DataFrame, by: list[str], offset: int) -> None:
    outputs: dict[str, Any] = {function: {"function": function} for function in OF_ORDER}
    for function in ("lag", "lead"):
        outputs |= {f"{function} {c}": {"function": function, "column": c, "offset": offset} for c in "xiwbt"}
    outputs["x"] = {"function": "lag", "column": "x"}  # in the place of what it looks at
    expected, found = both(Step(0, operation(op="window", by=by, order="ts", outputs=outputs)), frame)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    "output",
    [
        {"function": "rolling_std", "column": "x", "span": "2d"},
        {"function": "rolling_max", "column": "t", "span": "2d"},
        {"function": "rolling_sum", "column": "x", "rows": 17},
        {"function": "rolling_std", "column": "x", "rows": 3},
        {"function": "cum_max", "column": "x"},
        {"function": "rolling_max", "column": "t", "rows": 3},
    ],
    ids=str,
)
def test_what_has_no_query_is_the_host_s(output: dict[str, Any], told: list[str]) -> None:
    days = pd.date_range("2024-01-01", periods=9, unit="us")
    frame = pd.DataFrame({"x": [1.5] * 9, "ts": days, "t": days, "k": pd.array([1, 2, 2] * 3, dtype="Int64")})
    step = Step(3, operation(op="window", by=["k"], order="ts", outputs={"o": output}))
    pd.testing.assert_frame_equal(
        apply_steps(Backend("cuda"), [(step, None)], frame), apply_steps(CPU, [(step, None)], frame)
    )
    assert told[0].startswith("tables.3 (window): on the host, since ")


def test_a_null_has_no_place_in_the_order() -> None:
    frame = pd.DataFrame({"x": [1.5, 2.0], "ts": [pd.Timestamp("2024-01-01"), pd.NaT]})
    frame["ts"] = frame["ts"].astype("datetime64[us]")
    step = Step(0, operation(op="window", order="ts", outputs={"o": {"function": "lag", "column": "x"}}))
    with pytest.raises(DataError, match="window: the order column 'ts' is null in 1 rows; filter or fill them"):
        apply_steps(Backend("cuda"), [(step, None)], frame)
