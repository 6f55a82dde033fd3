"""Constants of expectations: what a column of each kind can be compared with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field

from treadle.errors import RequestError, shortened

Whole = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Constant = bool | Whole | Number | str
EPOCH = datetime(1970, 1, 1)


def time_of(text: str) -> datetime | None:
    """A time of ISO 8601, in UTC without its zone; None when it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)


def spelled(value: Any) -> str:
    """A constant as messages show it: 1000000 for 1e6."""
    if isinstance(value, str):
        return f"'{shortened(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else str(value)


def check_constant(column: str, kind: str, value: Any) -> None:
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
        raise RequestError(f"column '{column}' is {kind}, and {spelled(value)} is not {wanted}.")


def measure_of(value: Any, kind: str) -> Any:
    """A constant as a number, a time in microseconds since 1970."""
    if kind != "timestamp":
        return int(value) if isinstance(value, bool) else value
    found = time_of(value)
    assert found is not None
    return (found - EPOCH) // timedelta(microseconds=1)
