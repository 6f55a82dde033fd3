"""The functions of SQL expressions: one table, checked and called in one place.

Meanings are DuckDB's, except that what DuckDB refuses to compute for one row (a division by
zero, a logarithm of zero) is null.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from treadle.engine.sql.values import EPOCH, Data, Kind, Site, Value, cast, coerced, round_half_away, unified
from treadle.errors import did_you_mean


@dataclass(frozen=True)
class Parameter:
    """What a function takes in one place."""

    kinds: tuple[Kind, ...] = ()
    """Kinds that are taken; none: any kind, but one for all such arguments of a call."""
    constant: bool = False
    """Only a literal, which the function gets as a Python scalar, not null."""
    to_text: bool = False
    """Any kind, which the function gets as text."""


@dataclass(frozen=True)
class Function:
    """`apply` gets a Series for each argument (a scalar for a constant one) and gives a Series."""

    parameters: tuple[Parameter, ...]
    result: Kind | None
    """None: the kind of the last argument that takes any kind or several."""
    apply: Callable[..., Data]
    optional: int = 0
    variadic: bool = False
    """The last parameter may be given any number of times."""


def _within(function: Callable[[Data], Data], inside: Callable[[Data], Data]) -> Callable[[Data], Data]:
    return lambda x: function(x.where(inside(x).fillna(False)))


def _power(x: Data, y: Data) -> Data:
    # pandas says NA ** 0 = 1 and 1 ** NA = 1; 0 ** -1 is a division by zero.
    defined = x.notna() & y.notna() & ~((x == 0) & (y < 0)).fillna(False)
    return (x**y).where(defined)


def _round(x: Data, digits: int = 0) -> Data:
    if abs(digits) > 300:
        return x if digits > 0 else x * 0
    if x.dtype == "Int64":
        if digits >= 0:
            return x
        unit = 10**-digits
        return x * 0 if digits < -18 else (x.abs() + unit // 2) // unit * unit * np.sign(x)
    scale = 10.0 ** abs(digits)
    near = round_half_away(x * scale) / scale if digits >= 0 else round_half_away(x / scale) * scale
    return near.where((near.abs() < np.inf).fillna(False), x)


def _substring(x: Data, start: int, length: int | None = None) -> Data:
    """Positions count from 1; a negative start counts from the end."""
    begin = start if start < 0 else start - 1
    end = None if length is None else begin + length
    if start < 0:
        return x.str.slice(begin, end if end is not None and end < 0 else None)
    return x.str.slice(max(begin, 0), None if end is None else max(end, 0))


def _extreme(better: Callable[[Data, Data], Data]) -> Callable[..., Data]:
    def extreme(first: Data, *others: Data) -> Data:
        best = first
        for other in others:
            best = best.where(~(better(other, best).fillna(False) | best.isna()), other)
        return best

    return extreme


def _coalesce(first: Data, *others: Data) -> Data:
    result = first
    for other in others:
        result = result.where(result.notna(), other)
    return result


def _concat(*texts: Data) -> Data:
    result = texts[0].fillna("")
    for text in texts[1:]:
        result = result + text.fillna("")
    return result


def _integer(x: Data) -> Data:
    return x.astype("Int64")


PARTS: dict[str, tuple[Kind, Callable[[Data], Data]]] = {
    "year": (Kind.INTEGER, lambda x: _integer(x.dt.year)),
    "quarter": (Kind.INTEGER, lambda x: _integer(x.dt.quarter)),
    "month": (Kind.INTEGER, lambda x: _integer(x.dt.month)),
    "week": (Kind.INTEGER, lambda x: _integer(x.dt.isocalendar().week)),
    "day": (Kind.INTEGER, lambda x: _integer(x.dt.day)),
    "hour": (Kind.INTEGER, lambda x: _integer(x.dt.hour)),
    "minute": (Kind.INTEGER, lambda x: _integer(x.dt.minute)),
    "second": (Kind.INTEGER, lambda x: _integer(x.dt.second)),
    "dayofweek": (Kind.INTEGER, lambda x: (_integer(x.dt.dayofweek) + 1) % 7),
    "dayofyear": (Kind.INTEGER, lambda x: _integer(x.dt.dayofyear)),
    "epoch": (Kind.DOUBLE, lambda x: ((x - EPOCH) / pd.Timedelta(seconds=1)).astype("Float64")),
}
"""Parts of a timestamp: functions of that name, and what extract(... FROM ...) takes."""

PART_NAMES = {**{name: name for name in PARTS}, "dow": "dayofweek", "doy": "dayofyear"}
_CLOCK = {"day": "D", "hour": "h", "minute": "min", "second": "s"}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


def _days(count: Data) -> Data:
    return pd.to_timedelta(count.astype("float64"), unit="D").astype("timedelta64[us]")


def _date_trunc(unit: str, x: Data) -> Data:
    day = x.dt.floor("D")
    if unit in _CLOCK:
        return x.dt.floor(_CLOCK[unit])
    if unit == "week":
        return day - _days(x.dt.dayofweek)
    if unit == "month":
        return day - _days(x.dt.day - 1)
    if unit == "year":
        return day - _days(x.dt.dayofyear - 1)
    quarter = x.dt.quarter
    before = 90 * (quarter == 2) + 181 * (quarter == 3) + 273 * (quarter == 4)
    leap_day = (x.dt.is_leap_year & (quarter > 1)).astype("int64")
    return day - _days(x.dt.dayofyear - 1 - before - leap_day)


def _date_diff(unit: str, start: Data, end: Data) -> Data:
    """How many boundaries of `unit` lie between; not how many whole units have passed."""
    if unit in _CLOCK:
        one = pd.Timedelta(f"1{_CLOCK[unit]}")
        return _integer((end.dt.floor(_CLOCK[unit]) - start.dt.floor(_CLOCK[unit])) // one)
    months = _MONTHS[unit]
    first, last = (_integer(x.dt.year) * 12 + _integer(x.dt.month) - 1 for x in (start, end))
    return last // months - first // months


NUMBER = Parameter((Kind.INTEGER, Kind.DOUBLE))
DOUBLE = Parameter((Kind.DOUBLE,))
BOOLEAN = Parameter((Kind.BOOLEAN,))
TEXT = Parameter((Kind.TEXT,))
TIMESTAMP = Parameter((Kind.TIMESTAMP,))
SAME = Parameter()
TO_TEXT = Parameter(to_text=True)
LITERAL_INTEGER = Parameter((Kind.INTEGER,), constant=True)
LITERAL_TEXT = Parameter((Kind.TEXT,), constant=True)

CONCATENATE = Function((TO_TEXT, TO_TEXT), Kind.TEXT, operator.add)
"""The operator ||: null when one side is null, unlike concat()."""


def _double(apply: Callable[[Data], Data]) -> Function:
    return Function((DOUBLE,), Kind.DOUBLE, apply)


def _choose(condition: Data, then: Data, otherwise: Data) -> Data:
    return then.where(condition.fillna(False), otherwise)


_IF = Function((BOOLEAN, SAME, SAME), None, _choose)

FUNCTIONS: dict[str, Function] = {
    "abs": Function((NUMBER,), None, lambda x: x.abs()),
    "round": Function((NUMBER, LITERAL_INTEGER), None, _round, optional=1),
    "floor": _double(np.floor),
    "ceil": _double(np.ceil),
    "sqrt": _double(np.sqrt),
    "exp": _double(np.exp),
    "ln": _double(_within(np.log, lambda x: x > 0)),
    "log10": _double(_within(np.log10, lambda x: x > 0)),
    "log2": _double(_within(np.log2, lambda x: x > 0)),
    "sin": _double(np.sin),
    "cos": _double(np.cos),
    "power": Function((DOUBLE, DOUBLE), Kind.DOUBLE, _power),
    "sign": Function((NUMBER,), Kind.INTEGER, lambda x: _integer(np.sign(x))),
    "greatest": Function((SAME,), None, _extreme(operator.gt), variadic=True),
    "least": Function((SAME,), None, _extreme(operator.lt), variadic=True),
    "coalesce": Function((SAME,), None, _coalesce, variadic=True),
    "nullif": Function((SAME, SAME), None, lambda x, y: x.mask((x == y).fillna(False).astype("bool"))),
    "if": _IF,
    "iif": _IF,
    "lower": Function((TEXT,), Kind.TEXT, lambda x: x.str.lower()),
    "upper": Function((TEXT,), Kind.TEXT, lambda x: x.str.upper()),
    "trim": Function((TEXT, LITERAL_TEXT), Kind.TEXT, lambda x, chars=" ": x.str.strip(chars), optional=1),
    "ltrim": Function((TEXT, LITERAL_TEXT), Kind.TEXT, lambda x, chars=" ": x.str.lstrip(chars), optional=1),
    "rtrim": Function((TEXT, LITERAL_TEXT), Kind.TEXT, lambda x, chars=" ": x.str.rstrip(chars), optional=1),
    "length": Function((TEXT,), Kind.INTEGER, lambda x: _integer(x.str.len())),
    "substring": Function((TEXT, LITERAL_INTEGER, LITERAL_INTEGER), Kind.TEXT, _substring, optional=1),
    "concat": Function((TO_TEXT,), Kind.TEXT, _concat, variadic=True),
    "replace": Function(
        (TEXT, LITERAL_TEXT, LITERAL_TEXT),
        Kind.TEXT,
        lambda x, old, new: x.str.replace(old, new, regex=False) if old else x,
    ),
    "starts_with": Function((TEXT, LITERAL_TEXT), Kind.BOOLEAN, lambda x, part: x.str.startswith(part)),
    "ends_with": Function((TEXT, LITERAL_TEXT), Kind.BOOLEAN, lambda x, part: x.str.endswith(part)),
    "contains": Function((TEXT, LITERAL_TEXT), Kind.BOOLEAN, lambda x, part: x.str.contains(part, regex=False)),
    **{name: Function((TIMESTAMP,), kind, apply) for name, (kind, apply) in PARTS.items()},
    "date_trunc": Function((LITERAL_TEXT, TIMESTAMP), Kind.TIMESTAMP, _date_trunc),
    "date_diff": Function((LITERAL_TEXT, TIMESTAMP, TIMESTAMP), Kind.INTEGER, _date_diff),
}

_UNITS = {"date_trunc": [*_CLOCK, "week", *_MONTHS], "date_diff": [*_CLOCK, *_MONTHS]}
_AGGREGATES = frozenset(
    {"avg", "count", "first", "last", "max", "mean", "median", "min", "mode", "std", "stddev", "sum", "var"}
)


def find_function(name: str, site: Site) -> Function:
    """The function of that name, whatever its case; RequestError with the nearest names otherwise."""
    folded = name.lower()
    if folded in FUNCTIONS:
        return FUNCTIONS[folded]
    if folded in _AGGREGATES:
        raise site.refuse(
            f"the aggregate {folded}() needs many rows, an expression sees one. Use the operation aggregate."
        )
    near, known = did_you_mean(folded, FUNCTIONS), ", ".join(sorted(FUNCTIONS))
    raise site.refuse(f"unknown function {name}().{near} Functions: {known}.")


def check_call(name: str, function: Function, constants: Sequence[Value | None], site: Site) -> None:
    """Refuses, before any frame is seen, a wrong number of arguments and wrong literals.

    `constants` has an entry an argument: the value of a literal, None for anything else.
    """
    least, most = len(function.parameters) - function.optional, len(function.parameters)
    if len(constants) < least or (len(constants) > most and not function.variadic):
        wanted = f"{least} or more" if function.variadic else f"{least}" if least == most else f"{least} or {most}"
        raise site.refuse(f"{name}() takes {wanted} argument{'s' * (wanted != '1')}, got {len(constants)}.")
    for place, (parameter, constant) in enumerate(zip(function.parameters, constants, strict=False), 1):
        if parameter.constant and (constant is None or constant.kind not in parameter.kinds):
            raise site.refuse(f"argument {place} of {name}() must be a literal {parameter.kinds[0]}.")
    if name == "substring" and len(constants) == 3 and constants[2] and constants[2].data < 0:
        raise constants[2].site.refuse("the length of substring() must not be negative.")
    if name in _UNITS and constants[0] and constants[0].data.lower() not in _UNITS[name]:
        unit, units = constants[0].data, _UNITS[name]
        raise constants[0].site.refuse(
            f"unknown unit '{unit}' of {name}().{did_you_mean(unit, units)} Units: {', '.join(units)}."
        )


def call(name: str, function: Function, arguments: Sequence[Value], frame: pd.DataFrame, site: Site) -> Value:
    """Applies a function to arguments whose number and literals `check_call` has seen."""
    last = function.parameters[-1]
    parameters = list(function.parameters[: len(arguments)])
    parameters += [last] * (len(arguments) - len(parameters))
    free = [place for place, parameter in enumerate(parameters) if parameter == SAME]
    values = list(arguments)
    kind, same = unified([values[place] for place in free], f"{name}()")
    for place, value in zip(free, same, strict=True):
        values[place] = value
    prepared: list[Any] = []
    for place, parameter in enumerate(parameters):
        value = _fitting(name, place + 1, parameter, values[place], frame)
        if parameter.constant:
            prepared.append(value.data.lower() if name in _UNITS else value.data)
            continue
        if parameter == NUMBER:
            kind = value.kind
        if value.kind is Kind.NULL:
            raise site.refuse(f"all arguments of {name}() are NULL. Write, say, CAST(NULL AS DOUBLE).")
        prepared.append(value.series(frame))
    return Value(function.result or kind, function.apply(*prepared), site)


def _fitting(name: str, place: int, parameter: Parameter, value: Value, frame: pd.DataFrame) -> Value:
    if parameter.to_text:
        return cast(value, Kind.TEXT, frame)
    if not parameter.kinds or value.kind in parameter.kinds:
        return value
    for kind in parameter.kinds:
        fitting = coerced(value, kind)
        if fitting is not None:
            return fitting
    wanted = "a number" if parameter == NUMBER else parameter.kinds[0]
    raise value.site.refuse(
        f"argument {place} of {name}() must be {wanted}, got {value.kind}. Convert it with CAST or TRY_CAST."
    )
