"""Operations on which columns there are: rename, select, drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from treadle.engine.operation import OWN_COLUMNS, Operation
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


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


class _Kept(Operation):
    """Takes columns away, and needs those that it names only to refuse a name that is not there."""

    columns: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return self.columns

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return wanted


class Select(_Kept):
    """Keeps the named columns, in that order."""

    op: Literal["select"]

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame[[c for c in dict.fromkeys((*OWN_COLUMNS, *self.columns)) if c in frame.columns]]


class Drop(_Kept):
    """Leaves columns out."""

    op: Literal["drop"]

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame[[c for c in frame.columns if c not in self.columns]]
