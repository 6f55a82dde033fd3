"""Feature operations of the `features:` part of a spec: configuration, fit and effect, side by side.

An operation is fitted on statistics of the training rows that merge over partitions, and becomes
a `Fitted` operation: plain JSON, kept in the model bundle and replayed unchanged at prediction.
Columns are carried as a dict of Series while features are made, because most operations touch a
few columns and one_hot adds many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from treadle.errors import DataError, RequestError, column_not_found, listed

if TYPE_CHECKING:
    import pandas as pd

    Columns = dict[str, pd.Series]

Kind = Literal["number", "indicator", "text", "timestamp"]
Statistic = Literal["moments", "sketch", "levels"]
Level = str | int | float | bool
Selector = Literal["numeric", "categorical", "all"]
OTHER = "other"
"""The level of values that the training rows did not have, with `unseen: other`."""
FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_LEVELS = 1000
"""One column a level costs memory in every later stage; past this many, ordinal is the answer."""


class Fitted(BaseModel):
    """A fitted operation: a pure function of one partition's columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def apply(self, columns: Columns) -> Columns:
        raise TypeError(f"{type(self).__name__} has no effect of its own")

    def kinds(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        """The columns after it, with their kinds, in order."""
        return dict(kinds)


class FittedImpute(Fitted):
    op: Literal["impute"] = "impute"
    values: dict[str, float | str]
    indicator: bool

    def apply(self, columns: Columns) -> Columns:
        out = dict(columns)
        for name, value in self.values.items():
            if self.indicator:
                out[f"{name}_missing"] = columns[name].isna().astype("float64")
            series = columns[name]
            out[name] = series.fillna(value) if isinstance(value, str) else numbers(series).fillna(value)
        return out

    def kinds(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        added: list[tuple[str, Kind]] = [(f"{name}_missing", "indicator") for name in self.values if self.indicator]
        return _distinct("impute", [*kinds.items(), *added])


class FittedScale(Fitted):
    op: Literal["scale"] = "scale"
    centre: dict[str, float]
    width: dict[str, float]

    def apply(self, columns: Columns) -> Columns:
        scaled = {n: (numbers(columns[n]) - self.centre[n]) / self.width[n] for n in self.centre}
        return {**columns, **scaled}


class FittedLevels(Fitted):
    """one_hot or ordinal: the levels of each column as the training rows had them."""

    op: Literal["one_hot", "ordinal"]
    levels: dict[str, tuple[Level, ...]]
    missing: str | None
    unseen: Literal["ignore", "other", "error"]

    def apply(self, columns: Columns) -> Columns:
        out: Columns = {}
        for name, series in columns.items():
            if name not in self.levels:
                out[name] = series
            elif self.op == "one_hot":
                codes = self._codes(name, series)
                for code, title in enumerate(self._titles(name)):
                    out[title] = (codes == code).astype("float64")
            else:
                codes = self._codes(name, series).astype("float64")
                out[name] = codes.where(codes >= 0)
        return out

    def kinds(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        out: list[tuple[str, Kind]] = []
        for name, kind in kinds.items():
            if name not in self.levels:
                out.append((name, kind))
            elif self.op == "one_hot":
                out += [(title, "indicator") for title in self._titles(name)]
            else:
                out.append((name, "number"))
        return _distinct(self.op, out)

    def _all_levels(self, name: str) -> tuple[Level, ...]:
        """Levels with a code of their own: the data's, then null's name unless a level is called so already."""
        levels = self.levels[name]
        named = self.missing is None or self.missing in map(str, levels)
        return levels if named else (*levels, self.missing)  # type: ignore[arg-type]

    def _titles(self, name: str) -> list[str]:
        levels = self._all_levels(name)
        other = (OTHER,) if self.unseen == "other" and self._other(levels) == len(levels) else ()
        return [f"{name}={level}" for level in (*levels, *other)]

    def _other(self, levels: tuple[Level, ...]) -> int:
        """The code of unseen values: one_hot's level `other` when the data have one, else a code of their own."""
        return levels.index(OTHER) if self.op == "one_hot" and OTHER in levels else len(levels)

    def _codes(self, name: str, series: pd.Series) -> pd.Series:
        """The code of every value; -1 for a null or an unseen value without a code."""
        levels = self._all_levels(name)
        codes = series.astype("category").cat.set_categories(list(self.levels[name])).cat.codes.astype("int64")
        if self.missing is not None:
            codes = codes.mask(series.isna(), [str(level) for level in levels].index(self.missing))
        if self.unseen == "ignore":
            return codes
        unseen = (codes < 0) & series.notna()
        if self.unseen == "error" and unseen.any():
            found = series[unseen].unique()
            raise DataError(
                f"Column '{name}' has values that the training rows did not have: "
                f"{listed(map(repr, found), 5)} ({int(unseen.sum())} rows). Known: [{listed(levels)}]. "
                "Set unseen: ignore or unseen: other in the feature operation to accept them."
            )
        return codes.where(~unseen, self._other(levels))


class FittedDateParts(Fitted):
    op: Literal["date_parts"] = "date_parts"
    columns: tuple[str, ...]
    parts: tuple[str, ...]

    def apply(self, columns: Columns) -> Columns:
        out: Columns = {}
        for name, series in columns.items():
            if name not in self.columns:
                out[name] = series
                continue
            for part in self.parts:
                out[f"{name}_{part}"] = getattr(series.dt, part).astype("float64")
        return out

    def kinds(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        out: list[tuple[str, Kind]] = []
        for name, kind in kinds.items():
            if name in self.columns:
                out += [(f"{name}_{part}", "number") for part in dict.fromkeys(self.parts)]
            else:
                out.append((name, kind))
        return _distinct("date_parts", out)


AnyFitted = Annotated[FittedImpute | FittedScale | FittedLevels | FittedDateParts, Field(discriminator="op")]


def _distinct(operation: str, kinds: Sequence[tuple[str, Kind]]) -> dict[str, Kind]:
    """The columns after an operation, unless one that it makes would take the place of another."""
    out = dict(kinds)
    if len(out) < len(kinds):
        names = [name for name, _ in kinds]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{operation}: there would be two features called '{twice}'; rename a column in tables.")
    return out


def numbers(series: pd.Series) -> pd.Series:
    """Any numeric or boolean series as float64 with NaN for null."""
    return series.astype("float64")


def apply(frame: pd.DataFrame, fitted: Sequence[Fitted], inputs: Sequence[str]) -> dict[str, pd.Series]:
    """The columns after all operations; a pure function of the partition."""
    columns = {name: frame[name] for name in inputs}
    for operation in fitted:
        columns = operation.apply(columns)
    return columns


def to_matrix(columns: Mapping[str, pd.Series], names: Sequence[str], rows: int) -> np.ndarray:
    """float32, rows by features; null is NaN.

    Raises
    ------
    DataError
        A value is infinite as float32, which no model takes.
    """
    matrix = np.empty((rows, len(names)), dtype=np.float32)
    for i, name in enumerate(names):
        values = numbers(columns[name]).to_numpy()
        beyond = np.abs(values) > FLOAT32_MAX
        if beyond.any():
            raise DataError(
                f"Feature '{name}' is infinite or beyond {FLOAT32_MAX:.1e} in {int(beyond.sum())} rows, "
                "which no model takes; filter or cap the values in tables, or make them null."
            )
        matrix[:, i] = values
    return matrix


class Operation(BaseModel):
    """An operation to fit; `columns` are names, or a selector that is resolved where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: Selector | tuple[str, ...]

    def statistic(self) -> Statistic | None:
        """What has to be gathered of each of its columns; None when nothing has to be."""
        return None

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"number", "indicator"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        """The fitted operation, from one statistic for each of the columns `names`."""
        raise TypeError(f"{type(self).__name__} cannot be fitted")

    def resolve(self, kinds: Mapping[str, Kind], where: str) -> tuple[str, ...]:
        """The columns it works on, checked to exist and to be of a kind that it accepts."""
        if isinstance(self.columns, str):
            wanted = {"numeric": {"number"}, "categorical": {"text"}, "all": self.accepted()}[self.columns]
            return tuple(name for name, kind in kinds.items() if kind in wanted & self.accepted())
        for name in self.columns:
            if name not in kinds:
                raise column_not_found(name, f"the input of {where}", kinds)
            if kinds[name] not in self.accepted():
                raise RequestError(
                    f"{where}: column '{name}' is a {kinds[name]}; it works on {listed(sorted(self.accepted()))}."
                )
        return self.columns


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
        return {"median": "sketch", "mean": "moments", "mode": "levels", "constant": None}[self.method]

    def accepted(self) -> frozenset[Kind]:
        text = self.method == "mode" or isinstance(self.value, str)
        number = not isinstance(self.value, str)
        kinds: set[Kind] = {"number", "indicator"} if number else set()
        return frozenset(kinds | {"text"} if text else kinds)

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        values: dict[str, float | str] = {}
        for name in names:
            if self.value is not None:
                values[name] = self.value
                continue
            found = statistics[name]
            if self.method == "mode":
                if not found:
                    raise _all_null("impute", name)
                values[name] = min(found, key=lambda level: (-found[level], level))
            elif (found.total if self.method == "median" else found.count) == 0:
                raise _all_null("impute", name)
            else:
                values[name] = found.quantile_float(0.5) if self.method == "median" else found.mean
            if isinstance(values[name], float) and not np.isfinite(values[name]):
                raise _infinite("impute", name)
        return FittedImpute(values=values, indicator=self.indicator)


class Scale(Operation):
    """Shifts and divides: to mean 0 and (population) deviation 1, or to the range 0 to 1."""

    op: Literal["scale"]
    method: Literal["standard", "minmax"] = "standard"

    def statistic(self) -> Statistic | None:
        return "moments"

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        centre, width = {}, {}
        for name in names:
            found = statistics[name]
            if found.count == 0:
                raise _all_null("scale", name)
            if np.isinf(found.minimum) or np.isinf(found.maximum):
                raise _infinite("scale", name)
            standard = self.method == "standard"
            centre[name] = found.mean if standard else found.minimum
            # A constant column would divide by zero; it becomes zero everywhere instead.
            width[name] = (found.std if standard else found.maximum - found.minimum) or 1.0
        return FittedScale(centre=centre, width=width)


class _Levels(Operation):
    missing: str | None = None
    """Name of the level that nulls get; without it they get none (one_hot) or stay null (ordinal)."""
    unseen: Literal["ignore", "other", "error"] = "ignore"
    """A value that the training rows did not have: no level, a level of its own, or an error."""

    def statistic(self) -> Statistic | None:
        return "levels"

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"text", "number", "indicator"})

    def _sorted(self, name: str, found: Mapping[Level, int]) -> tuple[Level, ...]:
        if not found and self.missing is None:
            raise _all_null(type(self).__name__, name)
        return tuple(sorted(found, key=lambda level: (isinstance(level, str), level)))


class OneHot(_Levels):
    """One 0/1 column a level, named `column=level`, levels sorted."""

    op: Literal["one_hot"]

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        for name in names:
            if len(statistics[name]) > MAX_LEVELS:
                raise DataError(
                    f"one_hot: column '{name}' has {len(statistics[name])} levels, more than {MAX_LEVELS}; "
                    "use ordinal for it, or drop it."
                )
        levels = {name: self._sorted(name, statistics[name]) for name in names}
        return FittedLevels(op="one_hot", levels=levels, missing=self.missing, unseen=self.unseen)


class Ordinal(_Levels):
    """The position of the value among the sorted levels; null stays null unless `missing` names it."""

    op: Literal["ordinal"]

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        levels = {name: self._sorted(name, statistics[name]) for name in names}
        return FittedLevels(op="ordinal", levels=levels, missing=self.missing, unseen=self.unseen)


class DateParts(Operation):
    """Replaces a timestamp by numbers: `ts` becomes `ts_hour`, `ts_weekday` and so on."""

    op: Literal["date_parts"]
    parts: tuple[Literal["year", "quarter", "month", "day", "weekday", "dayofyear", "hour", "minute"], ...] = (
        "year",
        "month",
        "day",
        "weekday",
        "hour",
    )

    def accepted(self) -> frozenset[Kind]:
        return frozenset({"timestamp"})

    def fit(self, names: Sequence[str], statistics: Mapping[str, Any]) -> Fitted:
        return FittedDateParts(columns=tuple(names), parts=self.parts)


FeatureOperation = Annotated[Impute | OneHot | Ordinal | Scale | DateParts, Field(discriminator="op")]


def _all_null(operation: str, column: str) -> DataError:
    return DataError(
        f"{operation}: column '{column}' is null in every training row, so there is nothing to learn from; drop it."
    )


def _infinite(operation: str, column: str) -> DataError:
    return DataError(
        f"{operation}: column '{column}' holds infinite values in the training rows; filter or cap them in tables, "
        "or make them null."
    )
