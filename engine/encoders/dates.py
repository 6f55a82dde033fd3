"""date_parts: numbers of the calendar and the clock in the place of a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from treadle.engine.encoders.base import Fitted, Kind, Operation, Titles
from treadle.engine.encoders.columns import Training

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.encoders.columns import Column

Part = Literal[
    "year", "quarter", "month", "week", "day", "weekday", "dayofyear", "hour", "minute", "second"
]  # fmt: skip
CYCLES: Mapping[str, tuple[int, int]] = {
    "quarter": (1, 4),
    "month": (1, 12),
    "week": (1, 53),
    "day": (1, 31),
    "weekday": (0, 7),
    "dayofyear": (1, 366),
    "hour": (0, 24),
    "minute": (0, 60),
    "second": (0, 60),
}
"""The first value of a part that comes round, and after how many it does."""


class FittedDateParts(Fitted):
    op: Literal["date_parts"] = "date_parts"
    columns: tuple[str, ...]
    parts: tuple[str, ...]
    cyclic: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self.columns

    def place(self, name: str, kind: Kind) -> Titles:
        out: Titles = []
        for part in dict.fromkeys(self.parts):
            out.append((f"{name}_{part}", "number"))
            if self.cyclic and part in CYCLES:
                out += [(f"{name}_{part}_sin", "number"), (f"{name}_{part}_cos", "number")]
        return out

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        from treadle.kernels.dates import date_parts

        series: pd.Series = column  # type: ignore[assignment]
        parts = tuple(dict.fromkeys(self.parts))
        made: list[Column] = []
        for part, values in zip(parts, date_parts(series.to_numpy("datetime64[us]"), parts), strict=True):
            made.append(values)
            if self.cyclic and part in CYCLES:
                first, period = CYCLES[part]
                angles = (values - first) * (2.0 * math.pi / period)
                made += [np.sin(angles), np.cos(angles)]
        return made


class DateParts(Operation):
    """Replaces a timestamp by numbers: `ts` becomes `ts_hour`, `ts_weekday` and so on."""

    op: Literal["date_parts"]
    parts: tuple[Part, ...] = ("year", "month", "day", "weekday", "hour")
    cyclic: bool = False
    """Also add sine and cosine of the parts that come round, `ts_hour_sin` and `ts_hour_cos`."""

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"timestamp"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        return FittedDateParts(columns=tuple(names), parts=self.parts, cyclic=self.cyclic)
