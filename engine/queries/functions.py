"""The functions of SQL expressions as queries, by the names of `treadle.engine.sql.functions`.

Those that are not here have no query, because engines do not agree on them to the last bit (log10, log2) or at all.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import polars as pl

from treadle.engine.queries.values import Typed, Unsupported, coerced, constant, converted, known, unified
from treadle.engine.sql.functions import PART_NAMES
from treadle.engine.sql.values import Kind

MICROSECONDS = {"day": 86_400_000_000, "hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000}
MONTHS = {"month": 1, "quarter": 3, "year": 12}
INTEGER = pl.Int64()


def call(name: str, arguments: list[Typed]) -> Typed:
    """A function of arguments that the host's compiler has seen. Unsupported where it has no query."""
    if name in PART_NAMES and len(arguments) == 1:
        return part_of(name, arguments[0])
    if name not in _FUNCTIONS:
        raise Unsupported(f"{name}()")
    return _FUNCTIONS[name](*arguments)


def part_of(name: str, value: Typed) -> Typed:
    """A part of a timestamp."""
    name = PART_NAMES.get(name, name)
    x = _as(value, Kind.TIMESTAMP)
    if name == "epoch":
        return Typed(Kind.DOUBLE, x.cast(INTEGER).cast(pl.Float64()) / 1e6)
    return Typed(Kind.INTEGER, PARTS[name](x.dt).cast(INTEGER))


PARTS: Mapping[str, Callable[[Any], pl.Expr]] = {
    "year": lambda dt: dt.year(),
    "quarter": lambda dt: dt.quarter(),
    "month": lambda dt: dt.month(),
    "week": lambda dt: dt.week(),
    "day": lambda dt: dt.day(),
    "hour": lambda dt: dt.hour(),
    "minute": lambda dt: dt.minute(),
    "second": lambda dt: dt.second(),
    "dayofweek": lambda dt: dt.weekday().cast(INTEGER) % 7,
    "dayofyear": lambda dt: dt.ordinal_day(),
}


def _as(value: Typed, kind: Kind) -> pl.Expr:
    found = coerced(value, kind)
    if found is None:
        raise Unsupported(f"{value.kind} where {kind} is wanted")
    return found.expr


def _number(value: Typed) -> Typed:
    if value.kind in (Kind.INTEGER, Kind.DOUBLE):
        return value
    return Typed(Kind.INTEGER, _as(value, Kind.INTEGER))


def _double(apply: Callable[[pl.Expr], pl.Expr]) -> Callable[[Typed], Typed]:
    return lambda x: Typed(Kind.DOUBLE, known(apply(_as(x, Kind.DOUBLE))))


def _text(apply: Callable[..., pl.Expr], kind: Kind = Kind.TEXT) -> Callable[..., Typed]:
    """Of a text and literals."""
    return lambda x, *literals: Typed(kind, apply(_as(x, Kind.TEXT), *(literal.data for literal in literals)))


def whole(x: pl.Expr) -> pl.Expr:
    """Without what is behind the point."""
    return pl.when(x < 0).then(x.ceil()).otherwise(x.floor())


def _away(x: pl.Expr) -> pl.Expr:
    """To whole numbers, halves away from zero, as `treadle.engine.sql.values.round_half_away`."""
    short = whole(x)
    return short + x.sign() * ((x - short).abs() >= 0.5).cast(pl.Float64())


def _round(value: Typed, digits: Typed | None = None) -> Typed:
    value, places = _number(value), 0 if digits is None else digits.data
    x = value.expr
    if abs(places) > 15:
        raise Unsupported(f"round() to {places} places")
    if value.kind is Kind.INTEGER:
        if places >= 0:
            return value
        unit = 10**-places
        return Typed(Kind.INTEGER, (x.abs() + unit // 2) // unit * unit * x.sign())
    scale = 10.0 ** abs(places)
    near = _away(x * scale) / scale if places >= 0 else _away(x / scale) * scale
    return Typed(Kind.DOUBLE, pl.when(near.is_finite()).then(near).otherwise(x))


def _power(x: Typed, y: Typed) -> Typed:
    if not (y.constant or (x.constant and x.data is not None and x.data > 0)):
        raise Unsupported("power() of two columns, of which engines take some for undefined")
    base, exponent = _as(x, Kind.DOUBLE), _as(y, Kind.DOUBLE)
    defined = base.is_not_null() & exponent.is_not_null() & ~((base == 0) & (exponent < 0))
    return Typed(Kind.DOUBLE, known(pl.when(defined).then(base.pow(exponent))))


def _extreme(better: Callable[[Any, Any], Any]) -> Callable[..., Typed]:
    def extreme(*values: Typed) -> Typed:
        kind, same = unified(list(values))
        _known_kind(kind)
        return Typed(kind, reduce(choose, (value.expr for value in same)))

    def choose(best: pl.Expr, other: pl.Expr) -> pl.Expr:
        return pl.when(better(other, best).fill_null(value=False) | best.is_null()).then(other).otherwise(best)

    return extreme


def _known_kind(kind: Kind) -> None:
    if kind is Kind.NULL:
        raise Unsupported("arguments that are all NULL")


def _coalesce(*values: Typed) -> Typed:
    kind, same = unified(list(values))
    _known_kind(kind)
    return Typed(kind, reduce(lambda best, other: best.fill_null(other), (value.expr for value in same)))


def _nullif(x: Typed, y: Typed) -> Typed:
    kind, (first, second) = unified([x, y])
    _known_kind(kind)
    same = (first.expr == second.expr).fill_null(value=False)
    return Typed(kind, pl.when(~same).then(first.expr))


def _if(condition: Typed, then: Typed, otherwise: Typed) -> Typed:
    kind, (yes, no) = unified([then, otherwise])
    _known_kind(kind)
    return Typed(kind, pl.when(_as(condition, Kind.BOOLEAN)).then(yes.expr).otherwise(no.expr))


def _as_text(value: Typed) -> pl.Expr:
    if value.kind is Kind.NULL:
        return constant(Kind.TEXT, None).expr
    return converted(value, Kind.TEXT)[0].expr


def _substring(x: Typed, start: Typed, length: Typed | None = None) -> Typed:
    """Positions count from 1."""
    begin = start.data - 1
    if begin < 0:
        raise Unsupported("substring() from the end")
    return Typed(Kind.TEXT, _as(x, Kind.TEXT).str.slice(begin, None if length is None else length.data))


def _replace(x: pl.Expr, old: str, new: str) -> pl.Expr:
    return x.str.replace_all(old, new, literal=True) if old else x


def _floor(x: pl.Expr, unit: str) -> pl.Expr:
    """Microseconds since 1970, of the beginning of a unit of the clock."""
    return x.cast(INTEGER) // MICROSECONDS[unit]


def _back(x: pl.Expr, days: pl.Expr) -> pl.Expr:
    """The beginning of the day so many days before."""
    return ((_floor(x, "day") - days.cast(INTEGER)) * MICROSECONDS["day"]).cast(pl.Datetime("us"))


def _date_trunc(unit: Typed, value: Typed) -> Typed:
    x, name = _as(value, Kind.TIMESTAMP), unit.data.lower()
    if name in MICROSECONDS:
        return Typed(Kind.TIMESTAMP, (_floor(x, name) * MICROSECONDS[name]).cast(pl.Datetime("us")))
    if name == "week":
        return Typed(Kind.TIMESTAMP, _back(x, x.dt.weekday().cast(INTEGER) - 1))
    if name == "month":
        return Typed(Kind.TIMESTAMP, _back(x, x.dt.day().cast(INTEGER) - 1))
    day = x.dt.ordinal_day().cast(INTEGER) - 1
    if name == "year":
        return Typed(Kind.TIMESTAMP, _back(x, day))
    quarter, leap = x.dt.quarter(), x.dt.is_leap_year()
    before = pl.when(quarter == 1).then(0).when(quarter == 2).then(90).when(quarter == 3).then(181).otherwise(273)
    before = before.cast(INTEGER) + ((quarter > 1) & leap).cast(INTEGER)
    return Typed(Kind.TIMESTAMP, _back(x, day - before))


def _date_diff(unit: Typed, start: Typed, end: Typed) -> Typed:
    """How many boundaries of the unit lie between."""
    first, last, name = _as(start, Kind.TIMESTAMP), _as(end, Kind.TIMESTAMP), unit.data.lower()
    if name in MICROSECONDS:
        return Typed(Kind.INTEGER, _floor(last, name) - _floor(first, name))
    a, b = (x.dt.year().cast(INTEGER) * 12 + x.dt.month().cast(INTEGER) - 1 for x in (first, last))
    return Typed(Kind.INTEGER, b // MONTHS[name] - a // MONTHS[name])


_FUNCTIONS: Mapping[str, Callable[..., Typed]] = {
    "abs": lambda x: Typed(_number(x).kind, _number(x).expr.abs()),
    "round": _round,
    "floor": _double(lambda x: x.floor()),
    "ceil": _double(lambda x: x.ceil()),
    "sqrt": _double(lambda x: x.sqrt()),
    "exp": _double(lambda x: x.exp()),
    "ln": _double(lambda x: pl.when(x > 0).then(x).log()),
    "sin": _double(lambda x: x.sin()),
    "cos": _double(lambda x: x.cos()),
    "power": _power,
    "sign": lambda x: Typed(Kind.INTEGER, _number(x).expr.sign().cast(INTEGER)),
    "greatest": _extreme(operator.gt),
    "least": _extreme(operator.lt),
    "coalesce": _coalesce,
    "nullif": _nullif,
    "if": _if,
    "iif": _if,
    "lower": _text(lambda x: x.str.to_lowercase()),
    "upper": _text(lambda x: x.str.to_uppercase()),
    "trim": _text(lambda x, chars=" ": x.str.strip_chars(chars)),
    "ltrim": _text(lambda x, chars=" ": x.str.strip_chars_start(chars)),
    "rtrim": _text(lambda x, chars=" ": x.str.strip_chars_end(chars)),
    "length": _text(lambda x: x.str.len_chars().cast(INTEGER), Kind.INTEGER),
    "substring": _substring,
    "concat": lambda *texts: Typed(Kind.TEXT, reduce(operator.add, (_as_text(t).fill_null("") for t in texts))),
    "||": lambda x, y: Typed(Kind.TEXT, _as_text(x) + _as_text(y)),
    "replace": _text(_replace),
    "starts_with": _text(lambda x, part: x.str.starts_with(part), Kind.BOOLEAN),
    "ends_with": _text(lambda x, part: x.str.ends_with(part), Kind.BOOLEAN),
    "contains": _text(lambda x, part: x.str.contains(part, literal=True), Kind.BOOLEAN),
    "date_trunc": _date_trunc,
    "date_diff": _date_diff,
}
