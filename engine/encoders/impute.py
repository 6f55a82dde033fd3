"""impute: nulls filled with a value that is learnt, or given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from treadle.engine.encoders.base import Fitted, Kind, Operation, Statistic, Titles, all_null, infinite
from treadle.engine.encoders.columns import Training, missing, numbers

if TYPE_CHECKING:
    import pandas as pd

    from treadle.engine.encoders.columns import Column


class FittedImpute(Fitted):
    op: Literal["impute"] = "impute"
    values: dict[str, float | str]
    indicator: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    def added(self, name: str) -> Titles:
        return [(f"{name}_missing", "indicator")] if self.indicator else []

    def effect(self, name: str, column: Column, training: Training | None) -> Sequence[Column]:
        value = self.values[name]
        filled: Column
        if isinstance(value, str):
            series: pd.Series = column  # type: ignore[assignment]
            filled = series.fillna(value)
        else:
            found = numbers(column)
            filled = np.where(np.isnan(found), value, found)
        return [filled, missing(column).astype(np.float64)] if self.indicator else [filled]


class Impute(Operation):
    """Fills nulls with a value learnt from the training rows (of several modes the smallest), or a given one."""

    op: Literal["impute"]
    method: Literal["median", "mean", "mode", "constant"] = "median"
    value: float | str | None = None
    indicator: bool = False
    """Also add `<column>_missing`, 1 where the value was null."""

    @model_validator(mode="after")
    def _value_goes_with_constant(self) -> Impute:
        if (self.value is None) == (self.method == "constant"):
            raise PydanticCustomError("value", "value: it is needed with method: constant, and only there")
        return self

    def statistic(self) -> Statistic | None:
        found: dict[str, Statistic | None] = {"median": "sketch", "mean": "moments", "mode": "levels", "constant": None}
        return found[self.method]

    def accepted(self) -> frozenset[Kind]:
        text = self.method == "mode" or isinstance(self.value, str)
        number = not isinstance(self.value, str)
        kinds: set[Kind] = {"number", "indicator"} if number else set()
        return frozenset(kinds | {"text"} if text else kinds)

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        values = {
            name: self._learnt(name, statistics.get(name)) if self.value is None else self.value for name in names
        }
        return FittedImpute(values=values, indicator=self.indicator)

    def outline(self, names: Sequence[str]) -> Fitted:
        return FittedImpute(values=dict.fromkeys(names, 0.0), indicator=self.indicator)

    def _learnt(self, name: str, found: Any) -> float | str:
        if self.method == "mode":
            if not len(found.values):
                raise all_null("impute", name)
            value: float | str = found.mode()
        elif (found.total if self.method == "median" else found.count) == 0:
            raise all_null("impute", name)
        else:
            value = found.quantile_float(0.5) if self.method == "median" else found.mean
        if isinstance(value, float) and not math.isfinite(value):
            raise infinite("impute", name)
        return value
