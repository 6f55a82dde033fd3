"""Expectations: what a job demands of its input, as the section `contract` of a spec lists them.

All are held against the rows as they were read, whatever the others find. An expectation on rows tells of each
row whether it breaks it, and may set such rows aside; one on the whole input only has a yes or no. A null breaks
none but `not_null` and `nulls`, as in SQL's constraints. Nothing here imports pandas, so that a spec is checked
quickly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from treadle.engine.expectations.base import OnEachRow, OnInput, OnRows
from treadle.engine.expectations.rows import Condition, Known, Matches, NotNull, Range, Unique, Values
from treadle.engine.expectations.whole import Fresh, Nulls, Rows, TypeIs
from treadle.errors import RequestError, TreadleError, column_not_found, shortened

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

EachRow = Range | Values | Matches | Condition | NotNull
"""Those that a row meets or breaks by itself."""
AnyExpectation = Annotated[
    TypeIs | Range | Values | Matches | Condition | NotNull | Nulls | Unique | Rows | Fresh | Known,
    Field(discriminator="expect"),
]

__all__ = [
    "AnyExpectation",
    "Condition",
    "EachRow",
    "Fresh",
    "Known",
    "Matches",
    "NotNull",
    "Nulls",
    "OnEachRow",
    "OnInput",
    "OnRows",
    "Range",
    "Rows",
    "TypeIs",
    "Unique",
    "Values",
    "broken_rows",
    "check_columns",
    "named",
    "place_of",
]


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


def broken_rows(name: str, expectation: OnEachRow, frame: pd.DataFrame) -> np.ndarray:
    """Which rows of a frame break an expectation, (rows,) bool; an error says which expectation it is about."""
    try:
        return expectation.broken(frame)
    except TreadleError as error:
        raise type(error)(f"{name}: {error}") from error
