"""The operation `cast`: other types for columns, and no value lost without a word."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Literal

from treadle.engine.operation import Operation
from treadle.engine.relational.keys import kind_of
from treadle.errors import DataError, RequestError, listed

if TYPE_CHECKING:
    import pandas as pd

CastType = Literal["int", "float", "bool", "timestamp", "date", "text"]


class Cast(Operation):
    """Changes the type of columns as CAST in an expression does; a value that cannot be converted is an error."""

    op: Literal["cast"]
    columns: dict[str, CastType]
    formats: tuple[str, ...] = ()
    """strptime formats, tried in order, for text cast to timestamp or date."""

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def needs(self, wanted: frozenset[str], side_columns: Sequence[str] = ()) -> frozenset[str]:
        return wanted

    def makes(self, side_columns: Sequence[str] = ()) -> frozenset[str]:
        return frozenset(self.columns)

    def only(self, wanted: frozenset[str]) -> Cast:
        return self.model_copy(update={"columns": {n: kind for n, kind in self.columns.items() if n in wanted}})

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        return frame.assign(**{n: cast(frame[n], kind, self.formats) for n, kind in self.columns.items()})


def cast(series: pd.Series, kind: CastType, formats: Sequence[str] = ()) -> pd.Series:
    """`series` as `kind`, in the dtypes of the engine's frames.

    Raises
    ------
    RequestError
        The types do not convert at all, such as a number to a timestamp.
    DataError
        A value has no counterpart: 3.5 is no int, '31/02/2024' no date.
    """
    from treadle.engine.sql.values import CONVERSIONS, DTYPES, RESULT_DTYPES, Kind

    known = {"int": Kind.INTEGER, "float": Kind.DOUBLE, "bool": Kind.BOOLEAN, "text": Kind.TEXT}
    found = kind_of(series)
    source, target = known.get(found, Kind.TIMESTAMP), known.get(kind, Kind.TIMESTAMP)
    values = series.astype(DTYPES[source])  # type: ignore[call-overload]
    if source is target:
        converted = values
    elif source is Kind.TEXT and target is Kind.TIMESTAMP and formats:
        converted = _parsed(values, formats)
    elif (source, target) in CONVERSIONS:
        converted = CONVERSIONS[source, target](values)
    else:
        remedy = (
            "use epoch(...) in derive" if source is Kind.TIMESTAMP else "cast it to text first, and name its formats"
        )
        raise RequestError(
            f"cast: column '{series.name}' is {found}, and {found} cannot become {kind}; {remedy} where that is meant."
        )
    lost = converted.isna() & series.notna()
    if target is Kind.INTEGER and source in (Kind.DOUBLE, Kind.TEXT):
        numbers = values if source is Kind.DOUBLE else CONVERSIONS[source, Kind.DOUBLE](values)
        lost = lost | (numbers.abs() % 1 > 0).fillna(False)
    if lost.any():
        examples = series[lost].unique().tolist()[:3]
        remedy = "name their formats, or use" if target is Kind.TIMESTAMP else "use"
        raise DataError(
            f"cast: {int(lost.sum())} values of column '{series.name}' are no {kind}, e.g. "
            f"{listed(map(repr, examples))}; {remedy} derive with try_cast to make them null."
        )
    converted = converted.dt.normalize() if kind == "date" else converted
    return converted.astype(RESULT_DTYPES[target])


def _parsed(texts: pd.Series, formats: Sequence[str]) -> pd.Series:
    """Text as times, each by the first format that fits; times with an offset in UTC."""
    import pandas as pd

    tried = (pd.to_datetime(texts, format=f, errors="coerce", utc=True) for f in formats)
    return reduce(lambda best, other: best.fillna(other), tried).dt.tz_localize(None).astype("datetime64[us]")
