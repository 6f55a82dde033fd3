"""SQL expressions as queries give what the host's expressions give, to the last bit but for elementary functions."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.sql_cases import EXPRESSIONS, Rows, edge_rows, make_frame
from tests.engine.test_sql import rows
from treadle.engine.backend import kinds_of
from treadle.engine.queries.expressions import Compiled
from treadle.engine.queries.query import Query
from treadle.engine.queries.values import Unsupported, frame_of, table_of
from treadle.engine.sql.expression import compile_expression
from treadle.errors import DataError

HOST_ONLY = {
    "x % y": "% of DOUBLE",
    "s LIKE 'a_b'": "LIKE with _",
    "s LIKE '_'": "LIKE with _",
    "s LIKE 'h_llo'": "LIKE with _",
    "CAST(x AS VARCHAR)": "a cast of DOUBLE to TEXT",
    "s || x": "a cast of DOUBLE to TEXT",
    "CAST(ts AS VARCHAR)": "a cast of TIMESTAMP to TEXT",
    "CAST(TRY_CAST(nullif(n, 'inf') AS TIMESTAMP) AS VARCHAR)": "a cast of TEXT to TIMESTAMP",
    "TRY_CAST(nullif(n, 'inf') AS TIMESTAMP)": "a cast of TEXT to TIMESTAMP",
    "TRY_CAST(n AS BIGINT)": "a cast of TEXT to INTEGER",
    "CAST('12' AS INT)": "a cast of TEXT to INTEGER",
    "TRY_CAST(n AS DOUBLE)": "a cast of TEXT to DOUBLE",
    "TRY_CAST(n AS BOOLEAN)": "a cast of TEXT to BOOLEAN",
    "log10(x)": r"log10\(\)",
    "log2(x)": r"log2\(\)",
    "power(x, y / 100000)": r"power\(\) of two columns",
    **{
        text: r"substring\(\) from the end"
        for text in EXPRESSIONS
        if text.startswith(("substring(s, 0", "substring(s, -"))
    },
}
"""Expressions without a query, and what is said of them."""
WITH_QUERY = [text for text in EXPRESSIONS if text not in HOST_ONLY]
ROUNDED = ("exp(", "ln(", "sin(", "cos(", "power(", "round(", "epoch")
"""Where libraries may differ in the last digit; Polars multiplies by 1e-6 where it is told to divide by 1e6."""


def by_query(text: str, frame: pd.DataFrame) -> pd.Series[Any]:
    compiled = Compiled(kinds_of(frame))
    query = Query.of(table_of(frame).lazy()).columns({"outcome": compiled.of(text)}, compiled.refused)
    return frame_of(query.lazy.select("outcome").collect())["outcome"]


def assert_same(text: str, data: Rows) -> None:
    frame = make_frame(data)
    try:
        expected = compile_expression(text)(frame)
    except DataError:
        return  # of a value that the host refuses, which the query marks: test_running.py
    tolerance = 1e-14 if any(name in text for name in ROUNDED) else 0.0
    pd.testing.assert_series_equal(by_query(text, frame), expected, check_names=False, rtol=tolerance, atol=0)


@pytest.mark.parametrize("text", WITH_QUERY)
def test_queries_of_edge_values(text: str) -> None:
    assert_same(text, edge_rows())


@settings(max_examples=40, deadline=None)
@given(text=st.sampled_from(WITH_QUERY), data=rows)
def test_queries_of_random_frames(text: str, data: Rows) -> None:
    assert_same(text, data)


@pytest.mark.parametrize("text", HOST_ONLY)
def test_what_has_no_query_says_so(text: str) -> None:
    with pytest.raises(Unsupported, match=HOST_ONLY[text]):
        by_query(text, make_frame(edge_rows()))
