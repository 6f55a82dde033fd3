"""The operation `join`: columns of another table, matched by equal keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from treadle.engine.operation import ROW_ID, Operation
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


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
