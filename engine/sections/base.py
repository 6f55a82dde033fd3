"""What sections of a spec have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from treadle.engine.relational.window import microseconds


class Section(BaseModel):
    """A frozen part of a spec that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _is_a_span(value: str) -> str:
    microseconds(value)
    return value


Span = Annotated[str, AfterValidator(_is_a_span)]
"""A length of time, e.g. 90s or 10min."""


def seconds_of(span: Span | None) -> float | None:
    """Of a length of time; None of none."""
    return None if span is None else microseconds(span) / 1e6
