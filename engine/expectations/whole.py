"""Expectations on the whole input, which the rows meet or break together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.expectations.base import OnInput
from treadle.engine.expectations.constants import time_of
from treadle.engine.relational.window import microseconds
from treadle.errors import RequestError

Kind = Literal["int", "float", "bool", "text", "timestamp"]


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
