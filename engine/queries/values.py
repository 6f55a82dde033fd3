"""Values in queries: the engine's kinds as Polars' types, frames as tables of Polars and back.

Null is one thing in a query, as it is in the engine's frames: floats have no NaN, because whatever could be one is
made null at once (`known`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import polars as pl

from treadle.engine.backend import ARROW_TYPES, HOST, kinds_of
from treadle.engine.sql.values import Kind, shared_kind

TYPES: Mapping[str, Any] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "text": pl.String(),
    "timestamp": pl.Datetime("us"),
}
"""Of the engine's kinds of columns."""
KINDS: Mapping[str, Kind] = {
    "int": Kind.INTEGER,
    "float": Kind.DOUBLE,
    "bool": Kind.BOOLEAN,
    "text": Kind.TEXT,
    "timestamp": Kind.TIMESTAMP,
}
"""Of expressions, by the engine's kinds of columns."""
TYPE_OF: Mapping[Kind, Any] = {KINDS[name]: type_ for name, type_ in TYPES.items()}
LARGEST = 2.0**63
"""Beyond the largest whole number."""


class Unsupported(Exception):
    """There is no query for what is asked; the text says of what, and why."""


@dataclass(frozen=True)
class Typed:
    """A part of an expression: what kind it is, and its query; of a constant its value, None for null."""

    kind: Kind
    expr: pl.Expr
    constant: bool = False
    data: Any = None


def constant(kind: Kind, data: Any) -> Typed:
    """A literal; a timestamp is a datetime without zone."""
    return Typed(kind, pl.lit(data, dtype=TYPE_OF.get(kind, pl.Null())), constant=True, data=data)


def known(expr: pl.Expr) -> pl.Expr:
    """A float without NaN: null instead."""
    return expr.fill_nan(None)


def coerced(value: Typed, kind: Kind) -> Typed | None:
    """The value as `kind` where that needs no CAST, as `treadle.engine.sql.values.coerced`; else None."""
    if value.kind is kind:
        return value
    if value.kind is Kind.NULL:
        return constant(kind, None)
    if (value.kind, kind) == (Kind.INTEGER, Kind.DOUBLE):
        if value.constant:
            return constant(kind, None if value.data is None else float(value.data))
        return Typed(kind, value.expr.cast(pl.Float64()))
    if (value.kind, kind) == (Kind.TEXT, Kind.TIMESTAMP) and value.constant:
        return timestamp(value)
    return None


def timestamp(value: Typed) -> Typed:
    """A constant text as a timestamp, read as the host reads it."""
    from treadle.engine.sql.values import Site, Value, timestamp_constant

    if value.data is None:
        return constant(Kind.TIMESTAMP, None)
    read = timestamp_constant(Value(Kind.TEXT, value.data, Site(value.data, 1), constant=True)).data
    return constant(Kind.TIMESTAMP, read.to_pydatetime(warn=False))


def unified(values: list[Typed]) -> tuple[Kind, list[Typed]]:
    """The kind that all values share and the values in it, as `treadle.engine.sql.values.unified`."""
    target = shared_kind([value.kind for value in values])
    if target is Kind.NULL:
        return target, values
    same = [coerced(value, target) for value in values]
    if any(value is None for value in same):
        raise Unsupported("kinds that do not go together")
    return target, [value for value in same if value is not None]


def converted(value: Typed, target: Kind) -> tuple[Typed, pl.Expr | None]:
    """The value as `target`, null where it has no counterpart, and where that is; None where it cannot be."""
    if value.kind is target or value.kind is Kind.NULL:
        found = coerced(value, target)
        assert found is not None
        return found, None
    if value.constant and (value.kind, target) == (Kind.TEXT, Kind.TIMESTAMP):
        found = coerced(value, target)
        assert found is not None
        return found, None
    x = value.expr
    match value.kind, target:
        case (Kind.INTEGER | Kind.BOOLEAN, Kind.DOUBLE | Kind.INTEGER):
            return Typed(
                target, x.cast(pl.Int64()).cast(pl.Float64()) if target is Kind.DOUBLE else x.cast(pl.Int64())
            ), None
        case (Kind.INTEGER | Kind.DOUBLE, Kind.BOOLEAN):
            return Typed(target, x != 0), None
        case (Kind.INTEGER, Kind.TEXT):
            return Typed(target, x.cast(pl.String())), None
        case (Kind.BOOLEAN, Kind.TEXT):
            return Typed(target, pl.when(x).then(pl.lit("true")).when(~x).then(pl.lit("false"))), None
        case (Kind.DOUBLE, Kind.INTEGER):
            whole = x.round(0, mode="half_to_even")
            fits = (whole > -LARGEST) & (whole < LARGEST)
            return Typed(target, pl.when(fits).then(whole).cast(pl.Int64())), ~fits
    raise Unsupported(f"a cast of {value.kind} to {target}")


def table_of(frame: pd.DataFrame) -> pl.DataFrame:
    """A frame of the engine's types as a table of Polars."""
    found: Any = pl.from_arrow(HOST.table(frame))
    return found.cast({name: TYPES[kind] for name, kind in kinds_of(frame).items()})


def frame_of(table: pl.DataFrame) -> pd.DataFrame:
    """A table of Polars as a frame of the engine's types."""
    arrow = table.to_arrow()
    kinds = {name: kind_of(type_) for name, type_ in table.schema.items()}
    return HOST.frame(arrow.cast(_arrow_schema(kinds)))


def kind_of(type_: Any) -> str:
    """The engine's kind of a type of Polars."""
    for kind, known_type in TYPES.items():
        if type_ == known_type:
            return kind
    raise Unsupported(f"the type {type_}")


def _arrow_schema(kinds: Mapping[str, str]) -> Any:
    import pyarrow as pa

    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])
