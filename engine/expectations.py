"""Expectations: what a job demands of its input, as the section `contract` of a spec lists them.

All are held against the rows as they were read, whatever the others find. An expectation on rows tells of each
row whether it breaks it, and may set such rows aside; one on the whole input only has a yes or no. A null breaks
none but `not_null` and `nulls`, as in SQL's constraints. Nothing here imports pandas, so that a spec is checked
quickly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.relational import Join, Side
from treadle.engine.relational.window import microseconds
from treadle.errors import RequestError, column_not_found, listed, shortened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Kind = Literal["int", "float", "bool", "text", "timestamp"]
Whole = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Constant = bool | Whole | Number | str
EPOCH = datetime(1970, 1, 1)


class Expectation(BaseModel):
    """A frozen expectation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return ()

    @property
    def said(self) -> str:
        """What is expected, in a few words."""
        raise NotImplementedError

    def check(self, kinds: Mapping[str, str]) -> None:
        """RequestError where its constants do not fit the kinds of its columns, all of which are there."""


class OnInput(Expectation):
    """One that the rows meet or break together."""

    otherwise: Literal["warn", "fail"] = "fail"

    @field_validator("otherwise", mode="before")
    @classmethod
    def _sets_nothing_aside(cls, value: Any) -> Any:
        if value == "quarantine":
            raise PydanticCustomError(
                "quarantine",
                "quarantine sets single rows aside, and this is about all of them together; use warn or fail "
                "(expectations on rows: [{names}])",
                {"names": listed(ON_ROWS)},
            )
        return value


class OnRows(Expectation):
    """One that each row meets or breaks."""

    otherwise: Literal["warn", "quarantine", "fail"] = "fail"


class OnEachRow(OnRows):
    """One that a row meets or breaks by itself."""

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        """Which rows break it, (rows,) bool."""
        raise NotImplementedError


class TypeIs(OnInput):
    """The kind that a column was read as."""

    expect: Literal["type"]
    column: str
    is_: Kind = Field(alias="is")

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        return f"{self.column} is {self.is_}"


class Range(OnEachRow):
    """Numbers or times within bounds, which are allowed themselves."""

    expect: Literal["range"]
    column: str
    min: Whole | Number | str | None = None
    max: Whole | Number | str | None = None

    @model_validator(mode="after")
    def _has_bounds(self) -> Range:
        if self.min is None and self.max is None:
            raise PydanticCustomError("range", "range: give min, max or both")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        if self.min is None or self.max is None:
            bound = f"at least {_text(self.min)}" if self.max is None else f"at most {_text(self.max)}"
            return f"{self.column} {bound}"
        return f"{self.column} from {_text(self.min)} to {_text(self.max)}"

    def check(self, kinds: Mapping[str, str]) -> None:
        kind = kinds[self.column]
        if kind in ("text", "bool"):
            remedy = 'write {expect: sql, sql: "length(...) <= 10"} for lengths' if kind == "text" else "use values"
            raise RequestError(
                f"column '{self.column}' is {kind}, and a range is one of numbers or timestamps; {remedy}."
            )
        for bound in (self.min, self.max):
            if bound is not None:
                _check_constant(self.column, "float" if kind == "int" else kind, bound)
        low, high = (None if b is None else _measure(b, kind) for b in (self.min, self.max))
        if low is not None and high is not None and low > high:
            raise RequestError(f"min {_text(self.min)} is above max {_text(self.max)}, so that no value is allowed.")

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        from treadle.engine.relational.keys import values_of

        series = frame[self.column]
        values, known = values_of(series)
        whole, kind = values.dtype.kind == "i", "timestamp" if series.dtype.kind == "M" else "float"
        within = known.copy()
        # Whole numbers are compared as such: as floats, large ones would be rounded.
        if self.min is not None:
            low = _measure(self.min, kind)
            within &= values >= (math.ceil(low) if whole else low)
        if self.max is not None:
            high = _measure(self.max, kind)
            within &= values <= (math.floor(high) if whole else high)
        return known & ~within


class Values(OnEachRow):
    """One of a list of values."""

    expect: Literal["values"]
    column: str
    allowed: tuple[Constant, ...] = Field(min_length=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        return f"{self.column} one of [{listed(map(_text, self.allowed))}]"

    def check(self, kinds: Mapping[str, str]) -> None:
        for value in self.allowed:
            _check_constant(self.column, kinds[self.column], value)

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        import numpy as np

        from treadle.engine.relational.keys import values_of

        series = frame[self.column]
        if series.dtype == "str":
            return (series.notna() & ~series.isin(list(self.allowed))).to_numpy(bool)
        values, known = values_of(series)
        kind = "timestamp" if series.dtype.kind == "M" else "int"
        return known & ~np.isin(values, np.array([_measure(v, kind) for v in self.allowed], dtype=values.dtype))


class Matches(OnEachRow):
    """Text of a form, given as a pattern of LIKE: % is any text, _ any character."""

    expect: Literal["matches"]
    column: str
    like: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        return f"{self.column} like {_text(self.like)}"

    def check(self, kinds: Mapping[str, str]) -> None:
        if kinds[self.column] != "text":
            raise RequestError(
                f"column '{self.column}' is {kinds[self.column]}, and a pattern is one of text; use sql."
            )

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        pattern = self.like.replace("'", "''")
        return _false(f"value like '{pattern}'", frame[[self.column]].rename(columns={self.column: "value"}))


class Condition(OnEachRow):
    """A condition in SQL that is true or null, as a CHECK constraint."""

    expect: Literal["sql"]
    sql: Annotated[str, Field(min_length=1)]

    @field_validator("sql")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        from treadle.engine.sql import compile_expression

        try:
            columns = compile_expression(value).columns
        except RequestError as error:
            raise PydanticCustomError("sql", "{message}", {"message": str(error)}) from error
        if not columns:
            raise PydanticCustomError("sql", "sql: the condition looks at no column; write one such as x > 0", {})
        return value

    @property
    def reads(self) -> tuple[str, ...]:
        from treadle.engine.sql import compile_expression

        return compile_expression(self.sql).columns

    @property
    def said(self) -> str:
        return self.sql

    def check(self, kinds: Mapping[str, str]) -> None:
        from treadle.engine.backend import Backend

        self.broken(Backend().empty(kinds))

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        return _false(self.sql, frame)


class NotNull(OnEachRow):
    """A value in every row."""

    expect: Literal["not_null"]
    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        return f"{self.column} not null"

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        return frame[self.column].isna().to_numpy(bool)


class Nulls(OnInput):
    """At most a share of the rows without a value."""

    expect: Literal["nulls"]
    column: str
    at_most: Annotated[float, Field(ge=0, le=1)]

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        return f"at most {self.at_most:.4g} of {self.column} null"


class Unique(OnRows):
    """Values that no earlier row has; of equal rows the first one stays."""

    expect: Literal["unique"]
    columns: tuple[str, ...] = Field(min_length=1)

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns

    @property
    def said(self) -> str:
        return f"{', '.join(self.columns)} unique"


class Rows(OnInput):
    """How many rows there are."""

    expect: Literal["rows"]
    min: Annotated[int, Field(ge=0)] | None = None
    max: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _has_bounds(self) -> Rows:
        if self.min is None and self.max is None:
            raise PydanticCustomError("rows", "rows: give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise PydanticCustomError("rows", "rows: min is above max")
        return self

    @property
    def said(self) -> str:
        if self.min is None or self.max is None:
            return f"at least {self.min} rows" if self.max is None else f"at most {self.max} rows"
        return f"{self.min} to {self.max} rows"


class Fresh(OnInput):
    """A newest time that is not too old."""

    expect: Literal["fresh"]
    column: str
    within: str
    of: str | None = None
    """A time; that of the check when absent."""

    @field_validator("within")
    @classmethod
    def _is_a_span(cls, value: str) -> str:
        microseconds(value)
        return value

    @field_validator("of")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None and time_of(value) is None:
            raise PydanticCustomError(
                "of", "of: '{value}' is no time such as 2026-01-31 or 2026-01-31T12:00:00", {"value": value}
            )
        return value

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def said(self) -> str:
        return f"{self.column} within {self.within} of {self.of or 'now'}"

    @property
    def span(self) -> timedelta:
        return timedelta(microseconds=microseconds(self.within))

    def check(self, kinds: Mapping[str, str]) -> None:
        if kinds[self.column] != "timestamp":
            raise RequestError(
                f"column '{self.column}' is {kinds[self.column]}, and only a timestamp is fresh; of text files, "
                "set data.types or data.date_formats."
            )


class Known(OnRows):
    """Values that another table has: a foreign key."""

    expect: Literal["known"]
    columns: tuple[str, ...] = Field(min_length=1)
    in_: Side = Field(alias="in")

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns

    @property
    def said(self) -> str:
        paths = [self.in_.path] if isinstance(self.in_.path, str) else self.in_.path
        # Names without their folders: what is cached is found again when all has moved.
        return f"{', '.join(self.columns)} known in {listed(path.rstrip('/').rsplit('/', 1)[-1] for path in paths)}"

    @property
    def join(self) -> Join:
        """The join that finds the rows that the other table does not have."""
        return Join.model_validate({"op": "join", "with": self.in_, "on": self.columns, "how": "anti"})


EachRow = Range | Values | Matches | Condition | NotNull
"""Those that a row meets or breaks by itself."""
AnyExpectation = Annotated[
    TypeIs | Range | Values | Matches | Condition | NotNull | Nulls | Unique | Rows | Fresh | Known,
    Field(discriminator="expect"),
]
ON_ROWS = ("range", "values", "matches", "sql", "not_null", "unique", "known")


def named(expectations: Sequence[AnyExpectation]) -> Iterator[tuple[str, AnyExpectation]]:
    """Every expectation, with the name that results and reasons give it."""
    for index, expectation in enumerate(expectations):
        yield f"{place_of(index, expectation)}: {shortened(expectation.said)}", expectation


def place_of(index: int, expectation: AnyExpectation) -> str:
    """Where it stands in the spec."""
    return f"contract.{index} ({expectation.expect})"


def check_columns(expectations: Sequence[AnyExpectation], kinds: Mapping[str, str], settled: frozenset[str]) -> None:
    """Holds columns and constants against the kinds of the input; those of the `settled` columns are left alone.

    Raises
    ------
    RequestError
        The first that names a column that is not there, or a constant that its column cannot have.
    """
    for index, expectation in enumerate(expectations):
        where = place_of(index, expectation)
        for name in expectation.reads:
            if name not in kinds:
                raise column_not_found(name, f"the input of {where}", kinds)
        if not settled.intersection(expectation.reads):
            try:
                expectation.check(kinds)
            except RequestError as error:
                raise RequestError(f"{where}: {error}") from error


def time_of(text: str) -> datetime | None:
    """A time of ISO 8601, in UTC without its zone; None when it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def _text(value: Any) -> str:
    """A constant as messages show it: 1000000 for 1e6."""
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else str(value)


def _check_constant(column: str, kind: str, value: Any) -> None:
    if kind == "timestamp":
        fits, wanted = isinstance(value, str) and time_of(value) is not None, "a time such as 2026-01-31T12:00:00"
    elif kind == "text":
        fits, wanted = isinstance(value, str), f"a text, such as '{value}' in quotes"
    elif kind == "bool":
        fits, wanted = isinstance(value, bool), "true or false"
    else:
        numbers = (int,) if kind == "int" else (int, float)
        fits = isinstance(value, numbers) and not isinstance(value, bool)
        wanted = "a whole number" if kind == "int" else "a number"
    if not fits:
        raise RequestError(f"column '{column}' is {kind}, and {_text(value)} is not {wanted}.")


def _measure(value: Any, kind: str) -> Any:
    """A constant as a number, a time in microseconds since 1970."""
    if kind != "timestamp":
        return int(value) if isinstance(value, bool) else value
    found = time_of(value)
    assert found is not None
    return (found - EPOCH) // timedelta(microseconds=1)


def _false(sql: str, frame: pd.DataFrame) -> np.ndarray:
    """Where a condition is false: not true, not null."""
    from treadle.engine.sql import compile_expression

    found = compile_expression(sql)(frame)
    if found.dtype != "boolean":
        raise RequestError(f'"{sql}" is no condition, its values are {found.dtype}; write a comparison, such as x > 0.')
    return (~found.fillna(True)).to_numpy(bool)
