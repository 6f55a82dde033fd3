"""Values of SQL expressions: their kinds, how frames become values and back, implicit and explicit casts.

Inside an expression every column has a nullable dtype (`DTYPES`), so that null is one thing;
a result goes back to the dtypes of the engine's frames (`RESULT_DTYPES`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from treadle.errors import DataError, RequestError

if TYPE_CHECKING:
    from sqlglot import exp

Data = Any
"""A Series of the frame's library or, for a constant, a Python scalar (None is null)."""


class Kind(StrEnum):
    """The types that expressions know; a date is a TIMESTAMP at midnight, as in the engine's frames."""

    INTEGER = "INTEGER"  # 64 bits, whatever the width of the column
    DOUBLE = "DOUBLE"
    BOOLEAN = "BOOLEAN"
    TEXT = "TEXT"
    TIMESTAMP = "TIMESTAMP"  # microseconds, no time zone
    NULL = "NULL"  # the literal NULL before anything says what it is


DTYPES = {
    Kind.INTEGER: "Int64",
    Kind.DOUBLE: "Float64",
    Kind.BOOLEAN: "boolean",
    Kind.TEXT: "string",
    Kind.TIMESTAMP: "datetime64[us]",
}
RESULT_DTYPES = {**DTYPES, Kind.DOUBLE: "float64", Kind.TEXT: "str"}
EPOCH = pd.Timestamp("1970-01-01").as_unit("us")
_ANY_SCALAR = {Kind.INTEGER: 0, Kind.DOUBLE: 0.0, Kind.BOOLEAN: False, Kind.TEXT: "", Kind.TIMESTAMP: EPOCH}
_SHOWN = 160


@dataclass(frozen=True)
class Site:
    """A place in an expression, for messages: `position` counts characters from 1."""

    text: str
    position: int

    def _message(self, problem: str) -> str:
        shown = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "..."
        return f'In the expression "{shown}", character {self.position}: {problem}'

    def refuse(self, problem: str) -> RequestError:
        return RequestError(self._message(problem))

    def fail(self, problem: str) -> DataError:
        return DataError(self._message(problem))


@dataclass(frozen=True)
class Value:
    """What a part of an expression gave for a frame, and where that part stands."""

    kind: Kind
    data: Data
    site: Site
    constant: bool = False

    def series(self, frame: pd.DataFrame) -> Data:
        """The data, one entry a row of `frame`."""
        if not self.constant:
            return self.data
        scalar: Any = _ANY_SCALAR[self.kind] if self.data is None else self.data
        # Assigning to the frame, not pd.Series(...): the data stay in the frame's library.
        column: Data = frame[[]].assign(constant=scalar)["constant"]
        filled = column.astype(DTYPES[self.kind])
        return filled.where(filled.isna()) if self.data is None else filled

    def operand(self, frame: pd.DataFrame) -> Data:
        """The scalar of a constant, else the series: the cheap right side of an operator."""
        return self.data if self.constant and self.data is not None else self.series(frame)


Evaluate = Callable[[pd.DataFrame], Value]
"""A compiled part of an expression."""
Compile = Callable[["exp.Expr"], Evaluate]
"""Compiles a part of the node at hand."""


@dataclass(frozen=True)
class Constant:
    """A compiled literal: the same value for every frame."""

    value: Value

    def __call__(self, frame: pd.DataFrame) -> Value:
        return self.value


def constant_of(evaluate: Evaluate) -> Value | None:
    return evaluate.value if isinstance(evaluate, Constant) else None


def mark_starts(tree: exp.Expr) -> None:
    """Notes in every node where its leftmost token stands; the parser notes it for leaves and calls only."""
    for node in reversed(list(tree.bfs())):
        begin, parent = node.meta.get("start"), node.parent
        if begin is not None and parent is not None:
            parent.meta["start"] = min(begin, parent.meta.get("start", begin))


def start_of(node: exp.Expr) -> int:
    """Offset in the text, once `mark_starts` has seen the tree."""
    return int(node.meta.get("start", 0))


def column_value(column: pd.Series, site: Site) -> Value:
    """A column of a frame as a value; RequestError for a dtype that has no kind."""
    dtype = column.dtype.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    types = pd.api.types
    if types.is_bool_dtype(dtype):
        kind = Kind.BOOLEAN
    elif types.is_integer_dtype(dtype):
        kind = Kind.INTEGER
    elif types.is_float_dtype(dtype):
        kind = Kind.DOUBLE
    elif isinstance(dtype, pd.StringDtype):
        kind = Kind.TEXT
    elif types.is_datetime64_dtype(dtype):
        kind = Kind.TIMESTAMP
    else:
        raise site.refuse(
            f"column '{column.name}' has the dtype {column.dtype}; expressions read numbers, booleans, "
            "text and timestamps without a time zone. Cast the column first."
        )
    return Value(kind, column.astype(DTYPES[kind]), site)  # type: ignore[call-overload]


def result_series(value: Value, frame: pd.DataFrame) -> pd.Series:
    """A value in the dtypes of the engine's frames, one entry a row of `frame`."""
    if value.kind is Kind.NULL:
        raise value.site.refuse("the type of NULL is not known here. Write, say, CAST(NULL AS DOUBLE).")
    return value.series(frame).astype(RESULT_DTYPES[value.kind]).rename(None)


def coerced(value: Value, kind: Kind) -> Value | None:
    """`value` as `kind` where that needs no CAST (null, integer to double, a literal date), else None."""
    if value.kind is kind:
        return value
    if value.kind is Kind.NULL:
        return replace(value, kind=kind)
    if (value.kind, kind) == (Kind.INTEGER, Kind.DOUBLE):
        data = float(value.data) if value.constant else value.data.astype(DTYPES[kind])
        return replace(value, kind=kind, data=data)
    if (value.kind, kind) == (Kind.TEXT, Kind.TIMESTAMP) and value.constant:
        return timestamp_constant(value)
    return None


def timestamp_constant(value: Value) -> Value:
    """A text constant as a timestamp; RequestError when it is none."""
    read = _text_to_timestamp(pd.Series([value.data], dtype="string")).iloc[0]
    if pd.isna(read):
        raise value.site.refuse(f"'{value.data}' is not a timestamp. Write 'YYYY-MM-DD HH:MM:SS'.")
    return replace(value, kind=Kind.TIMESTAMP, data=read.as_unit("us"))


def shared_kind(kinds: Sequence[Kind]) -> Kind:
    """The kind that values of these kinds would all be; the first one's where they do not go together."""
    known = [kind for kind in kinds if kind is not Kind.NULL]
    if set(known) == {Kind.INTEGER, Kind.DOUBLE}:
        return Kind.DOUBLE
    if set(known) == {Kind.TIMESTAMP, Kind.TEXT}:
        return Kind.TIMESTAMP
    return known[0] if known else Kind.NULL


def unified(values: Sequence[Value], where: str) -> tuple[Kind, list[Value]]:
    """The kind that all values share and the values in it; NULL when none has a kind."""
    target = shared_kind([value.kind for value in values])
    if target is Kind.NULL:
        return target, list(values)
    same = []
    for value in values:
        fitting = coerced(value, target)
        if fitting is None:
            raise value.site.refuse(f"{where} mixes {target} and {value.kind}. Make them alike with CAST or TRY_CAST.")
        same.append(fitting)
    return target, same


def round_half_away(x: Data) -> Data:
    """To whole numbers as SQL's round() does; pandas rounds half to even."""
    whole = np.trunc(x)
    return whole + np.sign(x) * ((x - whole).abs() >= 0.5).astype("Float64")


def _double_to_integer(x: Data, rounded: Callable[[Data], Data] = np.rint) -> Data:
    whole = rounded(x)
    return whole.where((whole.abs() < 2.0**63).fillna(False)).astype("Int64")


_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_INFINITY = r"^\s*[+-]?[iI][nN][fF]([iI][nN][iI][tT][yY])?\s*$"
_DIGITS = r"^\s*[+-]?[0-9]{1,19}\s*$"
_LARGEST = str(2**63 - 1)
_ISO_DATE = r"^\s*[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T]|\s*$)"


def _matches(text: Data, *patterns: str) -> Data:
    found = text.str.match(patterns[0])
    for pattern in patterns[1:]:
        found = found | text.str.match(pattern)
    return found.fillna(False).astype("bool")


def _text_to_double(text: Data) -> Data:
    # Not pd.to_numeric: it is off by an ulp for long numbers and takes 'True', '' and hexadecimal.
    return text.where(_matches(text, _NUMBER, _INFINITY)).str.strip().astype("Float64")


def _text_to_integer(text: Data) -> Data:
    double = _text_to_double(text)
    rounded = _double_to_integer(double, round_half_away)
    digits = text.where(_matches(text, _DIGITS)).str.strip().str.lstrip("+")
    # As text, because the double next to the largest integer is beyond it.
    magnitude = digits.str.lstrip("-").str.zfill(19)
    exact = ((magnitude <= _LARGEST) | (digits == f"-{2**63}")).fillna(False).astype("bool")
    return rounded.mask(exact, digits.where(exact).astype("Int64"))


def _text_to_boolean(text: Data) -> Data:
    folded = text.str.lower()
    true, false = folded.isin(["true", "t", "yes", "y", "1"]), folded.isin(["false", "f", "no", "n", "0"])
    return true.astype("boolean").where(true | false)


def _text_to_timestamp(text: Data) -> Data:
    # More than six decimals would make pandas choose nanoseconds, whose years end in 2262.
    iso = text.where(_matches(text, _ISO_DATE)).str.strip().str.replace(r"(\.[0-9]{6})[0-9]+", r"\1", regex=True)
    read = pd.to_datetime(iso, format="ISO8601", errors="coerce", utc=True)
    return read.dt.tz_localize(None).astype("datetime64[us]")


def _timestamp_to_text(x: Data) -> Data:
    year = x.dt.year.astype("Int64").astype("string").str.zfill(4)  # %Y has no leading zeros
    rest = x.dt.strftime("-%m-%d %H:%M:%S.%f").astype("string")
    return year + rest.str.replace(r"\.?0+$", "", regex=True)


CONVERSIONS: dict[tuple[Kind, Kind], Callable[[Data], Data]] = {
    (Kind.INTEGER, Kind.DOUBLE): lambda x: x.astype("Float64"),
    (Kind.INTEGER, Kind.BOOLEAN): lambda x: x != 0,
    (Kind.INTEGER, Kind.TEXT): lambda x: x.astype("string"),
    (Kind.DOUBLE, Kind.INTEGER): _double_to_integer,
    (Kind.DOUBLE, Kind.BOOLEAN): lambda x: x != 0,
    (Kind.DOUBLE, Kind.TEXT): lambda x: x.astype("string"),
    (Kind.BOOLEAN, Kind.INTEGER): lambda x: x.astype("Int64"),
    (Kind.BOOLEAN, Kind.DOUBLE): lambda x: x.astype("Float64"),
    (Kind.BOOLEAN, Kind.TEXT): lambda x: x.astype("string").str.lower(),
    (Kind.TEXT, Kind.INTEGER): _text_to_integer,
    (Kind.TEXT, Kind.DOUBLE): _text_to_double,
    (Kind.TEXT, Kind.BOOLEAN): _text_to_boolean,
    (Kind.TEXT, Kind.TIMESTAMP): _text_to_timestamp,
    (Kind.TIMESTAMP, Kind.TEXT): _timestamp_to_text,
}
"""How series of nullable dtypes are cast; null where a value has no counterpart."""


def cast(value: Value, target: Kind, frame: pd.DataFrame) -> Value:
    """An explicit cast, null where a value has no counterpart; RequestError for kinds that have none at all.

    As in DuckDB, doubles become integers by rounding half to even and decimal text by rounding
    half away from zero. Text with a UTC offset becomes the timestamp in UTC.
    """
    fitting = coerced(value, target) if value.kind is Kind.NULL else value
    if fitting is not None and fitting.kind is target:
        return fitting
    convert = CONVERSIONS.get((value.kind, target))
    if convert is None:
        remedy = " For seconds since 1970 write epoch(...)." if value.kind is Kind.TIMESTAMP else ""
        raise value.site.refuse(f"{value.kind} cannot be cast to {target}.{remedy}")
    return Value(target, convert(value.series(frame)), value.site)
