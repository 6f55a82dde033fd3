"""The operation `window` as a query: rows are sorted by key and order, looked at, and put back in their places."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from typing import Any

import polars as pl

from treadle.engine.operation import ROW_ID
from treadle.engine.queries.query import PLACE, Query
from treadle.engine.queries.values import TYPES, Unsupported, known
from treadle.engine.relational.window import UNITS, Output, Window, microseconds

POSITION = f"{ROW_ID}position"
"""Where a row is among all, sorted by key and order."""
COUNT, RESULT = f"{ROW_ID}count:", f"{ROW_ID}result:"
"""Prefixes of columns that an output is made of: known values before it, and what is made of them."""
INTEGER, DOUBLE = pl.Int64(), pl.Float64()
LONGEST = 10**17
"""Microseconds of a span that can be taken from any time without leaving 64 bits."""


def window(query: Query, operation: Window) -> Query:
    """The rows with their outputs, each in its place.

    Raises
    ------
    Unsupported
        An output that no engine's windows give, or types and orders that the host refuses.
    """
    order = operation.order
    if order is not None and query.kinds[order] not in ("int", "float", "timestamp"):
        raise Unsupported("an order that is neither time nor number")
    by = list(operation.by)
    sort = [*by, *([] if order is None else [order]), PLACE]
    lazy = query.lazy.with_row_index(PLACE).sort(sort, maintain_order=True).with_row_index(POSITION)
    first: dict[str, pl.Expr] = {}
    last: dict[str, pl.Expr] = {}
    spans: dict[tuple[str, bool], dict[str, pl.Expr]] = {}
    kinds = dict(query.kinds)
    for name, output in operation.outputs.items():
        if output.span is not None:
            period = _period(output, query.kinds[str(order)])
            made, kind = _of_span(name, output, query.kinds)
            spans.setdefault((period, output.current), {}).update(made.columns)
        else:
            made, kind = _output(name, output, operation, query.kinds)
            first.update(made.columns)
        last[name] = made.result
        kinds[name] = kind
    over = [_over(expr, by).alias(name) for name, expr in first.items()]
    shifted = [_over(pl.col(name).shift(1), by).alias(name) for name in first if name.endswith("<")]
    sorted_rows = lazy
    lazy = lazy.with_columns(over).with_columns(shifted)
    for (period, current), columns in spans.items():
        closed: Any = "right" if current else "left"
        rolled = sorted_rows.rolling(str(order), period=period, closed=closed, group_by=by or None)
        # In any order; rows of one key and of equal order have the same window.
        keys = [*by, str(order)]
        found = rolled.agg(expr.alias(name) for name, expr in columns.items()).unique(keys)
        lazy = lazy.join(found.select(*keys, *columns), on=keys, how="left", nulls_equal=True)
    lazy = lazy.with_columns(expr.cast(TYPES[kinds[name]]).alias(name) for name, expr in last.items())
    refused: tuple[str, ...] = ()
    if order is not None:
        refused = (f"{ROW_ID}refused0",)
        lazy = lazy.with_columns(pl.col(order).is_null().alias(refused[0]))
    return Query(lazy.sort(PLACE).select([*kinds, *refused]), kinds, refused)


def _over(expr: pl.Expr, by: list[str]) -> pl.Expr:
    return expr.over(by) if by else expr


class _Made:
    """What an output is of some columns, and these, over the rows of a key; of the row before where they end in `<`."""

    def __init__(self, result: pl.Expr, **columns: pl.Expr) -> None:
        self.result, self.columns = result, columns


def _output(name: str, output: Output, operation: Window, kinds: Mapping[str, str]) -> tuple[_Made, str]:
    function = output.function
    if function in ("row_number", "rank", "dense_rank", "time_since_last"):
        return _of_order(name, function, operation, kinds)
    column = output.column
    if function in ("lag", "lead"):
        assert column is not None
        offset = output.offset if function == "lag" else -output.offset
        result = f"{RESULT}{name}"
        return _Made(pl.col(result), **{result: pl.col(column).shift(offset)}), kinds[column]
    shape, _, what = function.partition("_")
    if what not in (_ROLLING if shape == "rolling" else ("sum", "mean", "count")):
        raise Unsupported(f"{function} is the host's")
    if what in ("sum", "mean") and kinds[str(column)] not in ("int", "float", "bool"):
        raise Unsupported(f"{function} of what is no number")
    end = "" if output.current else "<"
    count, result = f"{COUNT}{name}{end}", f"{RESULT}{name}{end}"
    value = pl.lit(1, dtype=INTEGER) if column is None else pl.col(column)
    there = pl.lit(1, dtype=INTEGER) + pl.col(POSITION).cast(INTEGER) * 0
    there = there if column is None else value.is_not_null().cast(INTEGER)
    counted = _running(there, output)
    if what == "count":
        return _Made(pl.col(count).fill_null(0), **{count: counted}), "int"
    kind = kinds[str(column)]
    if what in ("min", "max"):
        if kind not in ("int", "float"):
            raise Unsupported(f"{function} of what is no number")
        assert output.rows is not None
        roll = value.rolling_min if what == "min" else value.rolling_max
        extreme = roll(output.rows, min_samples=1)
        return _Made(pl.col(result), **{result: extreme}), kind
    number = value if kind == "float" else value.cast(INTEGER)
    # A null adds nothing to a sum, and of no known value there is none.
    number = (number.cast(DOUBLE) if what == "mean" else number).fill_null(0)
    if output.rows is None or (what == "sum" and kind != "float"):
        columns, total = {result: _running(number, output)}, pl.col(result)
    elif output.rows > MOST_SUMMANDS:
        raise Unsupported(f"{function} of more than {MOST_SUMMANDS} rows, whose sums engines update and round")
    else:
        # Row by row, since what leaves a window is not to leave a trace in its sum.
        columns = {f"{result}{n}": number.shift(n + (not output.current)) for n in range(output.rows)}
        total = functools.reduce(operator.add, (pl.col(name).fill_null(0) for name in columns))
    made: pl.Expr = pl.when(pl.col(count) > 0).then(total)
    made = made / pl.col(count) if what == "mean" else made
    is_float = what == "mean" or kind == "float"
    return _Made(known(made) if is_float else made, **{count: counted, **columns}), "float" if is_float else "int"


MOST_SUMMANDS = 16
_ROLLING = ("sum", "mean", "count", "min", "max")


def _running(expr: pl.Expr, output: Output) -> pl.Expr:
    """The sum up to each row: of all rows, or of the last ones."""
    return expr.cum_sum() if output.rows is None else expr.rolling_sum(output.rows, min_samples=1)


def _period(output: Output, order: str) -> str:
    """A span as Polars writes it; the rows of a span end before it begins, or at it without the row itself."""
    if order == "timestamp":
        span = microseconds(str(output.span))
        if span <= LONGEST:
            return f"{span}us"
    elif order == "int":
        number = float(output.span or 0)
        whole = math.ceil(number) if output.current else math.floor(number)
        if 0 < whole < 2**31:
            return f"{whole}i"
    raise Unsupported("a span of floats, or one that is very long")


def _of_span(name: str, output: Output, kinds: Mapping[str, str]) -> tuple[_Made, str]:
    """Of the rows of a span: what is aggregated of them, and what the output is of that."""
    what, column = output.function.partition("_")[2], output.column
    count, result = f"{COUNT}{name}", f"{RESULT}{name}"
    if column is None:
        return _Made(pl.col(count), **{count: pl.len()}), "int"
    value, kind = pl.col(column), kinds[column]
    if what == "count":
        return _Made(pl.col(count), **{count: value.count()}), "int"
    if what not in ("sum", "mean", "min", "max") or kind not in ("int", "float", *(("bool",) if what == "sum" else ())):
        raise Unsupported(f"{output.function} of {kind} over a span")
    if what in ("min", "max"):
        return _Made(pl.col(result), **{result: value.min() if what == "min" else value.max()}), kind
    if what == "mean":
        return _Made(known(pl.col(result)), **{result: value.cast(DOUBLE).mean()}), "float"
    total = value.sum() if kind == "float" else value.cast(INTEGER).sum()
    made: pl.Expr = pl.when(pl.col(count) > 0).then(pl.col(result))
    columns = {count: value.count(), result: total}
    return (_Made(known(made), **columns), "float") if kind == "float" else (_Made(made, **columns), "int")


def _of_order(name: str, function: str, operation: Window, kinds: Mapping[str, str]) -> tuple[_Made, str]:
    result = f"{RESULT}{name}"
    if function == "row_number":
        return _Made(pl.col(result), **{result: pl.col(POSITION).rank("ordinal").cast(INTEGER)}), "int"
    assert operation.order is not None
    order = pl.col(operation.order)
    if function == "time_since_last":
        if kinds[operation.order] == "int":
            raise Unsupported("time_since_last of whole numbers, whose differences may be beyond 64 bits")
        before = {result: order.shift(1)}
        if kinds[operation.order] == "float":
            return _Made(known(order - pl.col(result)), **before), "float"
        since = order.cast(INTEGER) - pl.col(result).cast(INTEGER)
        return _Made(since.cast(DOUBLE) / UNITS["s"], **before), "float"
    methods: Mapping[str, Any] = {"rank": "min", "dense_rank": "dense"}
    return _Made(pl.col(result), **{result: order.rank(methods[function]).cast(INTEGER)}), "int"
