"""Expectations on rows: a row meets or breaks one, by itself or for the other rows that there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.expectations.base import OnEachRow, OnRows
from treadle.engine.expectations.constants import Constant, Number, Whole, check_constant, measure_of, spelled
from treadle.engine.relational import Join, Side
from treadle.errors import RequestError, listed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


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
            bound = f"at least {spelled(self.min)}" if self.max is None else f"at most {spelled(self.max)}"
            return f"{self.column} {bound}"
        return f"{self.column} from {spelled(self.min)} to {spelled(self.max)}"

    def check(self, kinds: Mapping[str, str]) -> None:
        kind = kinds[self.column]
        if kind in ("text", "bool"):
            remedy = 'write {expect: sql, sql: "length(...) <= 10"} for lengths' if kind == "text" else "use values"
            raise RequestError(
                f"column '{self.column}' is {kind}, and a range is one of numbers or timestamps; {remedy}."
            )
        for bound in (self.min, self.max):
            if bound is not None:
                check_constant(self.column, "float" if kind == "int" else kind, bound)
        low, high = (None if b is None else measure_of(b, kind) for b in (self.min, self.max))
        if low is not None and high is not None and low > high:
            raise RequestError(
                f"min {spelled(self.min)} is above max {spelled(self.max)}, so that no value is allowed."
            )

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        from treadle.engine.relational.keys import values_of

        series = frame[self.column]
        values, known = values_of(series)
        whole, kind = values.dtype.kind == "i", "timestamp" if series.dtype.kind == "M" else "float"
        within = known.copy()
        # Whole numbers are compared as such: as floats, large ones would be rounded.
        if self.min is not None:
            low = measure_of(self.min, kind)
            within &= values >= (math.ceil(low) if whole else low)
        if self.max is not None:
            high = measure_of(self.max, kind)
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
        return f"{self.column} one of [{listed(map(spelled, self.allowed))}]"

    def check(self, kinds: Mapping[str, str]) -> None:
        for value in self.allowed:
            check_constant(self.column, kinds[self.column], value)

    def broken(self, frame: pd.DataFrame) -> np.ndarray:
        import numpy as np

        from treadle.engine.relational.keys import values_of

        series = frame[self.column]
        if series.dtype == "str":
            return (series.notna() & ~series.isin(list(self.allowed))).to_numpy(bool)
        values, known = values_of(series)
        kind = "timestamp" if series.dtype.kind == "M" else "int"
        return known & ~np.isin(values, np.array([measure_of(v, kind) for v in self.allowed], dtype=values.dtype))


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
        return f"{self.column} like {spelled(self.like)}"

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
        from treadle.engine.sql.expression import compile_expression

        try:
            columns = compile_expression(value).columns
        except RequestError as error:
            raise PydanticCustomError("sql", "{message}", {"message": str(error)}) from error
        if not columns:
            raise PydanticCustomError("sql", "sql: the condition looks at no column; write one such as x > 0", {})
        return value

    @property
    def reads(self) -> tuple[str, ...]:
        from treadle.engine.sql.expression import compile_expression

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


def _false(sql: str, frame: pd.DataFrame) -> np.ndarray:
    """Where a condition is false: not true, not null."""
    from treadle.engine.sql.expression import compile_expression

    found = compile_expression(sql)(frame)
    if found.dtype != "boolean":
        raise RequestError(f'"{sql}" is no condition, its values are {found.dtype}; write a comparison, such as x > 0.')
    return (~found.fillna(True)).to_numpy(bool)
