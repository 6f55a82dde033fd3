"""Rows that a first filter rules out are not read: whole files by their partition folders, row groups by their footers.

Only filters before any other operation count, and only while all of their conditions compare a column
with literals: such a filter fails for no row, so that leaving rows out changes nothing but the time.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sqlglot import exp

from treadle.engine.artifacts import Piece
from treadle.engine.inputs import filesystem
from treadle.engine.readers.parts import constant
from treadle.engine.sql.expression import parsed
from treadle.engine.sql.nodes import compile_node
from treadle.engine.sql.values import Kind, Value, coerced, constant_of, mark_starts
from treadle.engine.store import Store

if TYPE_CHECKING:
    from treadle.engine.program import Step

KINDS = {"int": Kind.INTEGER, "float": Kind.DOUBLE, "text": Kind.TEXT, "timestamp": Kind.TIMESTAMP}
MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
COMPARISONS: Mapping[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
MICROSECOND = pd.Timedelta(1, "us")


@dataclass(frozen=True)
class Condition:
    """What a row must be to pass: its column compared with `values`, one but for `in`; none for `null`, `not null`."""

    column: str
    operator: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Range:
    """What is known of a column in some rows: bounds of its values, if there are any, and how many are null."""

    low: Any
    high: Any
    nulls: int
    rows: int


def narrowed(
    store: Store, kinds: Mapping[str, str], id_column: str | None, steps: Sequence[Step], pieces: Sequence[Piece]
) -> list[Piece]:
    """The pieces without the row groups in which no row passes the first filters; one without rows if none is left.

    Rows whose id may be null stay, since such an id is an error.
    """
    conditions = [c for c in first_conditions(steps) if kinds.get(c.column) in KINDS or c.operator.endswith("null")]
    if not conditions or not pieces:
        return list(pieces)
    kept = [part for piece in pieces for part in _parts(store, kinds, id_column, conditions, piece)]
    return kept or [pieces[0].model_copy(update={"stop": pieces[0].start})]


def first_conditions(steps: Sequence[Step]) -> list[Condition]:
    """The conditions of the filters with which the operations begin, all of which a row must meet."""
    found: list[Condition] = []
    for step in steps:
        if step.operation.op != "filter":  # type: ignore[attr-defined]
            break
        conditions = conditions_of(step.operation.sql)  # type: ignore[attr-defined]
        if conditions is None:
            break
        found += conditions
    return found


@lru_cache(maxsize=256)
def conditions_of(sql: str) -> list[Condition] | None:
    """The comparisons that an expression joins by AND; None when there is anything else in it."""
    tree = parsed(sql)
    mark_starts(tree)
    found: list[Condition] = []
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, exp.Paren):
            todo.append(node.this)
        elif isinstance(node, exp.And):
            todo += [node.this, node.expression]
        else:
            conditions = _comparison(node, sql)
            if conditions is None:
                return None
            found += conditions
    return found


def _comparison(node: exp.Expr, sql: str) -> list[Condition] | None:
    def literals(nodes: Sequence[exp.Expr | None]) -> tuple[Value, ...] | None:
        # A name, a call or a sum is no literal; whether it is allowed at all is for the compiler to say.
        values = [constant_of(compile_node(n, sql)) if isinstance(n, exp.Literal | exp.Neg) else None for n in nodes]
        return tuple(v for v in values if v is not None) if all(values) else None

    if isinstance(node, exp.Not) and isinstance(node.this, exp.Is | exp.Paren):
        inner = node.this.unnest()
        is_null = _comparison(inner, sql) if isinstance(inner, exp.Is) else None
        return None if is_null is None else [Condition(is_null[0].column, "not null")]
    if isinstance(node, exp.Is) and isinstance(node.this, exp.Column) and isinstance(node.expression, exp.Null):
        return [Condition(node.this.name, "null")]
    left, right = node.this, node.args.get("expression")
    if type(node) in COMPARISONS:
        operator = COMPARISONS[type(node)]
        if isinstance(right, exp.Column):
            left, right, operator = right, left, MIRRORED[operator]
        values = literals([right])
        return [Condition(left.name, operator, values)] if isinstance(left, exp.Column) and values else None
    if isinstance(node, exp.In) and isinstance(left, exp.Column) and not node.args.get("query"):
        values = literals(node.expressions)
        return [Condition(left.name, "in", values)] if values else None
    if isinstance(node, exp.Between) and isinstance(left, exp.Column):
        values = literals([node.args.get("low"), node.args.get("high")])
        return [Condition(left.name, o, (v,)) for o, v in zip((">=", "<="), values, strict=True)] if values else None
    return None


def _parts(
    store: Store, kinds: Mapping[str, str], id_column: str | None, conditions: Sequence[Condition], piece: Piece
) -> list[Piece]:
    """What is left of a piece: runs of row groups."""
    if piece.batch is not None:
        return [piece]
    for condition in conditions:
        name = condition.column
        if name in piece.constants and not _may_hold(condition, kinds[name], _of_constant(piece, kinds[name], name)):
            return []
    own = [condition for condition in conditions if condition.column not in piece.constants]
    metadata = _footer(store, piece) if own else None
    if metadata is None:
        return [piece]
    kept: list[Piece] = []
    row = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        start, stop = max(row, piece.start), min(row + group.num_rows, piece.stop)
        row += group.num_rows
        if start >= stop or not _is_wanted(group, kinds, id_column, own):
            continue
        if kept and kept[-1].stop == start:
            kept[-1] = kept[-1].model_copy(update={"stop": stop})
        else:
            moved = {"start": start, "stop": stop, "offset": piece.offset + start - piece.start}
            kept.append(piece.model_copy(update=moved))
    return kept


def _footer(store: Store, piece: Piece) -> pq.FileMetaData | None:
    fs, path = (store.fs, store.path(piece.path)) if piece.own else filesystem(piece.path)
    try:
        with fs.open(path, "rb") as file:
            return pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        return None  # reading the rows tells what is wrong


def _is_wanted(
    group: pq.RowGroupMetaData, kinds: Mapping[str, str], id_column: str | None, conditions: Sequence[Condition]
) -> bool:
    ranges = {name: _range(group, name) for name in {*(c.column for c in conditions), *filter(None, [id_column])}}
    ids = ranges.get(id_column or "")
    if id_column is not None and (ids is None or ids.nulls):
        return True
    return all(_may_hold(condition, kinds[condition.column], ranges[condition.column]) for condition in conditions)


def _range(group: pq.RowGroupMetaData, name: str) -> Range | None:
    """What the statistics of a row group say of a column; None when they do not."""
    columns = [group.column(i) for i in range(group.num_columns)]
    found = [column.statistics for column in columns if column.path_in_schema == name]
    # A name with a dot may also be that of a nested column.
    if len(found) != 1 or found[0] is None or not found[0].has_null_count:
        return None
    low, high = (found[0].min, found[0].max) if found[0].has_min_max else (None, None)
    return Range(low, high, found[0].null_count, group.num_rows)


def _of_constant(piece: Piece, kind: str, name: str) -> Range:
    value = constant(piece.constants[name], kind, 1)[0].as_py()
    return Range(value, value, piece.rows if value is None else 0, piece.rows)


def _may_hold(condition: Condition, kind: str, known: Range | None) -> bool:
    """Whether a row may meet a condition, by what is known of its column."""
    if known is None:
        return True
    if condition.operator == "null":
        return known.nulls > 0 or kind == "float"  # NaN is null, and nobody counts it
    if known.nulls == known.rows:
        return False
    low, high = _bound(known.low, kind, -MICROSECOND), _bound(known.high, kind, MICROSECOND)
    if condition.operator == "not null" or low is None or high is None:
        return True
    values = [coerced(value, KINDS[kind]) for value in condition.values]
    if any(value is None or value.data is None for value in values):
        return True
    compared = [value.data for value in values if value is not None]
    match condition.operator:
        case "=" | "in":
            return any(low <= value <= high for value in compared)
        case "<>":
            return not low == high == compared[0]
        case "<":
            return bool(low < compared[0])
        case "<=":
            return bool(low <= compared[0])
        case ">":
            return bool(high > compared[0])
        case _:
            return bool(high >= compared[0])


def _bound(value: Any, kind: str, slack: pd.Timedelta) -> Any:
    """A bound as a value of the engine's kind, None when the file has the column in another one."""
    if kind == "int":
        return value if type(value) is int else None
    if kind == "text":
        return value if type(value) is str else None
    if kind == "float":
        number = float(value) if isinstance(value, float | Decimal) else math.nan
        return None if math.isnan(number) else number
    if not isinstance(value, dt.date):
        return None
    try:
        # Fractions beyond microseconds are cut when rows are read.
        time = pd.Timestamp(value).as_unit("us") + slack
    except (ValueError, OverflowError):
        return None
    return time.tz_convert("UTC").tz_localize(None) if time.tz is not None else time
