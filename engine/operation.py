"""What every relational operation of the `tables:` part of a spec is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pandas as pd

ROW_ID = "__id__"
"""The column that names a row inside the engine; tables call it `id`."""
ROW_ORDER = "__order__"
"""The place that an exchanged row had in the order of the rows; other rows lie in it."""
OWN_COLUMNS = (ROW_ID, ROW_ORDER)
"""Columns of the engine's own; no operation makes or takes them away."""


class Placed(Protocol):
    """An operation at its place in a spec."""

    @property
    def operation(self) -> Operation: ...

    @property
    def where(self) -> str:
        """As messages call it: tables.3 (window)."""

    @property
    def is_local(self) -> bool:
        """An aggregate of rows that all lie in the frame: it takes no group table."""

    def check(self, frame: pd.DataFrame) -> None:
        """Refuses rows without a column that it reads."""

    def applied(self, frame: pd.DataFrame, side: pd.DataFrame | None) -> pd.DataFrame:
        """The operation on rows, on the host, with the small table that it may take."""


class Operation(BaseModel):
    """A frozen operation; `reads` are the columns that `apply` needs, whatever is wanted of its output."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def together(self) -> tuple[str, ...] | None:
        """Columns whose equal values must all lie in the frame given to `apply`; None when each row is by itself.

        Without any column, all rows must.
        """
        return None

    def resolved(self, columns: Sequence[str]) -> Operation:
        """The operation with what it leaves open said for an input with these columns."""
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ()

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        """The input columns from which the `wanted` output columns can be made."""
        return wanted | set(self.reads)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        """The columns that it adds or changes; it can be left out when none of them is wanted."""
        return frozenset()

    def only(self, wanted: frozenset[str]) -> Operation:
        """The operation without the part that makes no `wanted` column, where it has such parts."""
        return self

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        raise TypeError(f"{type(self).__name__} has no effect of its own")
