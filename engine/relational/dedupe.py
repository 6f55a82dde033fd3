"""Operations that leave rows out by what other rows there are, or by chance: dedupe, sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.operation import OWN_COLUMNS, ROW_ID, Operation
from treadle.engine.relational.keys import codes_of, hash_keys, kind_of, values_of
from treadle.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd


class Dedupe(Operation):
    """Keeps one row of those that have equal values (null equals null) in some columns, or in all but the id."""

    op: Literal["dedupe"]
    columns: tuple[str, ...] | None = Field(default=None, min_length=1)
    keep: Literal["first", "last"] = "first"
    order: str | None = None
    """What first and last go by, null being before all; the order of the rows when absent, and among equals."""

    @property
    def together(self) -> tuple[str, ...]:
        return self.columns or ()

    def resolved(self, columns: Sequence[str]) -> Dedupe:
        return self if self.columns else self.model_copy(update={"columns": tuple(columns)})

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(self.columns or ()), *([self.order] if self.order else [])]))

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return wanted | set(self.reads)

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        from treadle.kernels.grouped import grouped_extreme, grouped_last

        codes, groups = codes_of(frame, self.columns or [c for c in frame.columns if c not in OWN_COLUMNS])
        keys = np.zeros(len(frame), dtype=np.int64)
        every = np.ones(len(frame), dtype=bool)
        if self.order is not None:
            if frame[self.order].dtype.kind not in "iufM":
                raise RequestError(
                    f"dedupe: order column '{self.order}' is {kind_of(frame[self.order])}; order by a time or a number."
                )
            values, known = values_of(frame[self.order])
            keys = _dense(values, known)
        if self.keep == "last":
            at = grouped_last(codes, keys, every, groups)
        else:
            at = grouped_extreme(codes, keys, every, groups, False)
        return frame.iloc[np.sort(at)].reset_index(drop=True)


def _dense(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of the values, equal for equal ones; 0 for nulls."""
    _, place = np.unique(values, return_inverse=True)
    return np.where(known, place + 1, 0)


class Sample(Operation):
    """Keeps a share of the rows, or a number of them, by a hash of their ids: the same ones for every partitioning."""

    op: Literal["sample"]
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    rows: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 7

    @model_validator(mode="after")
    def _one_of_both(self) -> Sample:
        if (self.fraction is None) == (self.rows is None):
            raise PydanticCustomError("sample", "sample takes either fraction (0.1) or rows (10000)")
        return self

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        """`side` holds the highest hash of the rows that are kept, when their number is given."""
        keys = hash_keys(frame[ROW_ID], self.seed)
        if self.fraction is not None:
            kept = keys < np.uint64(min(int(self.fraction * 2.0**64), 2**64 - 1))
        elif side is None or not len(side):
            kept = keys <= _highest(keys, self.rows)
        else:
            kept = keys <= side["highest"].to_numpy("int64").view(np.uint64)[0]
        return frame[kept].reset_index(drop=True)

    def smallest(self, frame: pd.DataFrame) -> np.ndarray:
        """The hashes of the rows of one partition that may be among those kept; uint64."""
        return _smallest(hash_keys(frame[ROW_ID], self.seed), self.rows)

    def merge(self, parts: list[np.ndarray]) -> np.ndarray:
        return _smallest(np.concatenate(parts), self.rows)

    def finish(self, smallest: np.ndarray) -> pd.DataFrame:
        """The table that `apply` takes: its `highest` is the hash as int64."""
        import pandas as pd

        highest = smallest.max(initial=np.uint64(0)).view(np.int64)
        return pd.DataFrame({"highest": pd.array([int(highest)], dtype="Int64")})


def _smallest(keys: np.ndarray, rows: int | None) -> np.ndarray:
    return keys if rows is None or len(keys) <= rows else np.partition(keys, rows - 1)[:rows]


def _highest(keys: np.ndarray, rows: int | None) -> np.uint64:
    return np.uint64(_smallest(keys, rows).max(initial=np.uint64(0)))
