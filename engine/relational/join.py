"""The operation `join`: columns of another table, matched by equal keys, or by keys and the last time before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import ROW_ID, Operation
from treadle.engine.relational.keys import index_of, kind_of, matches, taken, with_columns
from treadle.engine.relational.window import microseconds
from treadle.errors import DataError, RequestError

if TYPE_CHECKING:
    import pandas as pd

MATCHED = f"{ROW_ID}matched"
POSITION = f"{ROW_ID}position"
TIME = f"{ROW_ID}time"
Format = Literal["parquet", "csv", "jsonl", "delta"]


class Side(BaseModel):
    """Another table, with the columns that are wanted of it under the names that they are to have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str | tuple[str, ...]
    format: Format | None = None
    """Guessed from the names when absent."""
    version: Annotated[int, Field(ge=0)] | None = None
    """Of a Delta table; the newest when absent."""
    columns: tuple[str, ...] | None = Field(default=None, min_length=1)
    """All when absent; names as they are in the file."""
    rename: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _renamed_are_taken(self) -> Side:
        left = [name for name in self.rename if self.columns is not None and name not in self.columns]
        if left:
            raise PydanticCustomError(
                "rename", "rename: '{name}' is not among the columns that are taken", {"name": left[0]}
            )
        return self

    def kinds(self, kinds: dict[str, str]) -> dict[str, str]:
        """Of the file's columns those that are taken, as they are called in the file."""
        return kinds if self.columns is None else {name: kinds[name] for name in self.columns}

    def renamed(self, names: Sequence[str]) -> list[str]:
        return [self.rename.get(name, name) for name in names]


class Times(BaseModel):
    """The two columns of a join by time, where they have different names."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    here: str
    there: str


class Join(Operation):
    """Adds the columns of another table, matched by equal keys; a null key matches nothing. Rows keep their order."""

    op: Literal["join"]
    with_: Side = Field(alias="with")
    on: tuple[str, ...] = ()
    how: Literal["left", "inner", "semi", "anti", "asof"] = "left"
    time: str | Times | None = None
    """asof: the times to match, one column of each table."""
    direction: Literal["backward", "forward", "nearest"] = "backward"
    """asof: the last row at or before the time, the first at or after it, or the nearer of both."""
    tolerance: str | Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """asof: the longest time between the two, such as 7d; a number where times are numbers."""

    @field_validator("tolerance")
    @classmethod
    def _is_a_span(cls, value: Any) -> Any:
        if isinstance(value, str):
            microseconds(value)
        return value

    @model_validator(mode="after")
    def _keys_fit(self) -> Join:
        wrong = ""
        if (self.how == "asof") != (self.time is not None):
            wrong = "time: it is needed with how: asof, and only there"
        elif self.how != "asof" and (self.tolerance is not None or self.direction != "backward"):
            wrong = "direction and tolerance are for how: asof"
        elif self.how != "asof" and not self.on:
            wrong = "on: missing; name the columns that both tables have in common"
        elif self.times and set(self.times) & set(self.on):
            wrong = f"time: '{min(set(self.times) & set(self.on))}' is in on, too; leave it out there"
        if wrong:
            raise PydanticCustomError("join", "{wrong}", {"wrong": wrong})
        return self

    @property
    def times(self) -> tuple[str, str] | None:
        """The column here and the column there that are matched by time."""
        if self.time is None:
            return None
        return (self.time, self.time) if isinstance(self.time, str) else (self.time.here, self.time.there)

    @property
    def keys_there(self) -> tuple[str, ...]:
        """The columns that the other table must have."""
        return (*self.on, self.times[1]) if self.times else self.on

    @property
    def decides_rows(self) -> bool:
        return self.how in ("inner", "semi", "anti")

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.on, self.times[0]) if self.times else self.on

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return (wanted - self.makes(side_columns)) | set(self.reads)

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        if self.how in ("semi", "anti"):
            return frozenset()
        return frozenset(side_columns) - set(self.reads)

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        assert side is not None
        self._check(frame, side)
        known = side.dropna(subset=list(self.keys_there))
        if self.how == "asof":
            return self._by_time(frame, known)
        if self.how in ("semi", "anti"):
            known = known[list(self.on)].drop_duplicates()
        keys = index_of(known[self.on[0]]) if len(self.on) == 1 else None
        if keys is not None:
            return self._by_position(frame, known, matches(frame[self.on[0]], keys))
        # An inner join of pandas does not keep the order of the rows; a left one does.
        joined = frame.merge(known.assign(**{MATCHED: True}), on=list(self.on), how="left")
        if self.how != "left":
            matched = joined[MATCHED].notna()
            joined = joined[~matched if self.how == "anti" else matched].reset_index(drop=True)
        return joined.drop(columns=MATCHED)

    def _by_position(self, frame: pd.DataFrame, known: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
        """With at most one match a row, at `rows` of the other table, columns are just taken from there."""
        if self.how != "left":
            kept = rows < 0 if self.how == "anti" else rows >= 0
            frame, rows = frame[kept].reset_index(drop=True), rows[kept]
        if self.how in ("semi", "anti"):
            return frame
        added = {name: taken(known[name], rows) for name in known.columns if name not in self.on}
        return with_columns(frame, added)

    def _by_time(self, frame: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
        """pandas joins by time what is sorted by time and has no null; the rest goes around it."""
        import pandas as pd

        assert self.times is not None
        here, there = self.times
        if frame[here].isna().any():
            raise DataError(
                f"join with {self.with_.path}: the time '{here}' is null in {int(frame[here].isna().sum())} rows; "
                "filter or fill them."
            )
        by = list(self.on)
        left = frame[self.on_and(here)].assign(**{POSITION: np.arange(len(frame))})
        left = left.dropna(subset=by).sort_values(here, kind="stable").rename(columns={here: TIME})
        right = known.sort_values(there, kind="stable").assign(**{TIME: lambda f: f[there]})
        right = right.drop(columns=there) if here == there else right
        for numbers in (left, right):
            if numbers[TIME].dtype.kind in "iu":
                numbers[TIME] = numbers[TIME].astype("int64")
            elif numbers[TIME].dtype.kind == "f":
                # An infinity is no distance away from itself, which pandas does not see.
                numbers[TIME] = numbers[TIME].clip(-np.finfo("float64").max, np.finfo("float64").max)
        tolerance: Any = self.tolerance
        if isinstance(tolerance, str):
            tolerance = pd.Timedelta(microseconds(tolerance), "us")
        elif tolerance is not None and left[TIME].dtype.kind == "i":
            tolerance = int(tolerance)
        matched = pd.merge_asof(left, right, on=TIME, by=by or None, direction=self.direction, tolerance=tolerance)
        matched = matched.set_index(POSITION).reindex(np.arange(len(frame)))
        added = [name for name in right.columns if name not in (*by, TIME)]
        types = {name: right[name].dtype for name in added}
        return frame.assign(**{name: matched[name].astype(types[name]).set_axis(frame.index) for name in added})

    def on_and(self, name: str) -> list[str]:
        return list(dict.fromkeys([*self.on, name]))

    def _check(self, frame: pd.DataFrame, side: pd.DataFrame) -> None:
        where = f"join with {self.with_.path}"
        common = (set(side.columns) & set(frame.columns)) - set(self.on)
        if self.times and self.times[0] == self.times[1]:
            common -= {self.times[0]}
        if common and self.how not in ("semi", "anti"):
            raise RequestError(
                f"{where}: both tables have a column '{min(common)}'; rename or drop yours before the join, "
                f"or take it under another name: with: {{path: ..., rename: {{{min(common)}: other}}}}."
            )
        for here, there in zip(self.reads, self.keys_there, strict=True):
            if side[there].dtype != frame[here].dtype:
                raise RequestError(
                    f"{where}: key '{here}' is {kind_of(frame[here])} here and {kind_of(side[there])} there; "
                    "cast one of them before the join."
                )
        if self.times:
            kind = kind_of(frame[self.times[0]])
            if kind not in ("int", "float", "timestamp"):
                raise RequestError(f"{where}: '{self.times[0]}' is {kind}; how: asof goes by times or numbers.")
            if self.tolerance is not None and isinstance(self.tolerance, str) != (kind == "timestamp"):
                tolerance = self.tolerance if isinstance(self.tolerance, str) else f"{self.tolerance:g}"
                raise RequestError(
                    f"{where}: tolerance {tolerance} does not fit '{self.times[0]}' ({kind}); write 7d for timestamps, "
                    "and a number for numbers."
                )
