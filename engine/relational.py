"""Relational operations of the `tables:` part of a spec: configuration and effect, side by side.

Each operation is a function of one partition, given at most one small table that was gathered
or read before (a group table, the other side of a join). Only the part of the frame API that
pandas and cuDF share is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from treadle.engine.aggregate import Aggregate
from treadle.engine.cast import Cast
from treadle.engine.operation import ROW_ID, Operation
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.sql import Expression


def _compiled(sql: str) -> Expression:
    from treadle.engine.sql import compile_expression

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


class Rename(Operation):
    """Gives columns new names."""

    op: Literal["rename"]
    columns: dict[str, str]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        old = {new: name for name, new in self.columns.items()}
        return frozenset(old.get(name, name) for name in wanted)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset(self.columns.values())

    def only(self, wanted: frozenset[str]) -> Rename:
        return self.model_copy(update={"columns": {old: new for old, new in self.columns.items() if new in wanted}})

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        renamed = [self.columns.get(name, name) for name in frame.columns]
        twice = sorted({name for name in renamed if renamed.count(name) > 1})
        if twice:
            raise RequestError(f"rename: two columns would be called '{twice[0]}'; drop one of them first.")
        return frame.rename(columns=self.columns)


class Select(Operation):
    """Keeps the named columns, in that order."""

    op: Literal["select"]
    columns: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return wanted

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame[[c for c in dict.fromkeys((ROW_ID, *self.columns)) if c in frame.columns]]


class Drop(Operation):
    """Leaves columns out."""

    op: Literal["drop"]
    columns: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return wanted

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame[[c for c in frame.columns if c not in self.columns]]


class Side(BaseModel):
    """The other table of a join; it is read whole and must fit the memory of a worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str | tuple[str, ...]
    format: Literal["parquet", "csv"] | None = None


class Join(Operation):
    """Adds the columns of another table, matched by equal keys; a null key matches nothing."""

    op: Literal["join"]
    with_: Side = Field(alias="with")
    on: tuple[str, ...] = Field(min_length=1)
    how: Literal["left", "inner"] = "left"

    @property
    def reads(self) -> tuple[str, ...]:
        return self.on

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return (wanted - (set(side_columns) - set(self.on))) | set(self.on)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset(side_columns) - set(self.on)

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        assert side is not None
        common = (set(side.columns) & set(frame.columns)) - set(self.on)
        if common:
            raise RequestError(
                f"join with {self.with_.path}: both tables have a column '{min(common)}'; "
                "rename or drop yours before the join."
            )
        for key in self.on:
            if side[key].dtype != frame[key].dtype:
                raise RequestError(
                    f"join with {self.with_.path}: key '{key}' is {frame[key].dtype} here and "
                    f"{side[key].dtype} there; cast one of them before the join."
                )
        matched = f"{ROW_ID}matched"
        known = side.dropna(subset=list(self.on)).assign(**{matched: True})
        # An inner join of pandas does not keep the order of the rows; a left one does.
        joined = frame.merge(known, on=list(self.on), how="left")
        if self.how == "inner":
            joined = joined[joined[matched].notna()].reset_index(drop=True)
        return joined.drop(columns=matched)


TableOperation = Annotated[
    Filter | Derive | Cast | Rename | Select | Drop | Join | Aggregate, Field(discriminator="op")
]
