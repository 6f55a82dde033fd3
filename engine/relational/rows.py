"""Operations on each row for itself: filter, derive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import Operation
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.sql.expression import Expression


def _compiled(sql: str) -> Expression:
    from treadle.engine.sql.expression import compile_expression

    return compile_expression(sql)


def _checked_sql(sql: str) -> str:
    try:
        _compiled(sql)
    except RequestError as error:
        raise PydanticCustomError("sql", "{message}", {"message": str(error)}) from error
    return sql


Sql = Annotated[str, Field(min_length=1)]


class Filter(Operation):
    """Keeps the rows for which the predicate is true (not false, not null)."""

    op: Literal["filter"]
    sql: Sql
    _check = field_validator("sql")(_checked_sql)

    @property
    def reads(self) -> tuple[str, ...]:
        return _compiled(self.sql).columns

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame[_compiled(self.sql).mask(frame)].reset_index(drop=True)


class Derive(Operation):
    """Adds (or replaces) a column computed by a scalar SQL expression."""

    op: Literal["derive"]
    name: str
    sql: Sql
    _check = field_validator("sql")(_checked_sql)

    @property
    def reads(self) -> tuple[str, ...]:
        return _compiled(self.sql).columns

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return (wanted - {self.name}) | set(self.reads)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset({self.name})

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame.assign(**{self.name: _compiled(self.sql)(frame)})
