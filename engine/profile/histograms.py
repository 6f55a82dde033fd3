"""Histograms, quantiles and periods, read from a column's table of values and counts: no second pass is made."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.engine.profile.columns import Column, Times
from treadle.engine.profile.document import Gap, Histogram, Periods
from treadle.kernels.sketch import QuantileSketch, float64_of_key, int64_of_key, key_of_float64

BINS = 20
"""Of a histogram; whole numbers of no more values have one each."""
LONG_TAIL = 10
"""A range so many times as wide as that between the outer quantiles is cut to these."""
MOST_PERIODS = 60
HOURS_UP_TO = 3
"""Days up to which rows are counted by the hour."""
Unit = Literal["hour", "day", "week", "month", "quarter", "year", "decade"]


def as_time(microseconds: int) -> str:
    """ISO 8601, without what is zero at its end: 2024-03-01, 2024-03-01T12:30, 2024-03-01T12:30:15.250000."""
    time = np.datetime64(microseconds, "us")
    day = time.astype("datetime64[D]")
    if time == day:
        return str(day)
    minute = time.astype("datetime64[m]")
    return str(minute) if time == minute else str(time).removesuffix(".000000")


def table_of(column: Column) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The finite values of an int or float column, sorted, with their counts; lower ends of buckets where it is not
    exact."""
    assert column.numbers is not None
    keys, counts = column.numbers.quantiles.keys, column.numbers.quantiles.counts
    if column.kind == "int":
        return int64_of_key(keys), counts
    kept = (keys > key_of_float64(np.array([-math.inf]))[0]) & (keys < key_of_float64(np.array([math.inf]))[0])
    return float64_of_key(keys[kept]), counts[kept]


def number_quantile(column: Column, share: float) -> float | None:
    """With linear interpolation; None without values, or where it is infinite."""
    assert column.numbers is not None
    sketch = column.numbers.quantiles
    if sketch.total == 0:
        return None
    if column.kind == "int":
        lower, upper, weight = _around(sketch, share)
        return float(lower + (upper - lower) * weight) if weight else float(lower)
    with np.errstate(invalid="ignore"):
        found = sketch.quantile_float(share)
    return found if math.isfinite(found) else None


def time_quantile(column: Column, share: float) -> str | None:
    """The earlier of the two times that are nearest."""
    assert column.times is not None
    sketch = column.times.quantiles
    return as_time(_around(sketch, share)[0]) if sketch.total else None


def _around(sketch: QuantileSketch, share: float) -> tuple[int, int, float]:
    """The two whole numbers that a quantile lies between, and its place between them."""
    position = share * (sketch.total - 1)
    before = math.floor(position)
    keys = [sketch.rank_key(min(rank, sketch.total)) for rank in (before + 1, before + 2)]
    lower, upper = int64_of_key(np.array(keys, dtype=np.uint64)).tolist()
    return lower, upper, position - before


def number_histogram(column: Column) -> Histogram | None:
    """Bins of equal width from the smallest to the largest value, or between the 1 % and 99 % quantiles when the range
    is much wider than that."""
    values, counts = table_of(column)
    if values.size == 0:
        return None
    low, high = values[0].item(), values[-1].item()
    inner = number_quantile(column, 0.01), number_quantile(column, 0.99)
    if None not in inner and inner[1] > inner[0] and high - low > LONG_TAIL * (inner[1] - inner[0]):  # type: ignore[operator]
        low, high = inner[0], inner[1]
    if column.kind == "int" and high - low < BINS and float(low).is_integer():
        edges = np.arange(int(low), math.floor(high) + 2) - 0.5
    elif low == high:
        return Histogram(edges=(float(low), float(high)), counts=(int(counts.sum()),))
    else:
        edges = np.linspace(float(low), float(high), BINS + 1)
    if not np.isfinite(edges).all():
        return None
    inside = (values >= edges[0]) & (values <= edges[-1])
    found, _ = np.histogram(values[inside].astype(np.float64), bins=edges, weights=counts[inside])
    return Histogram(
        edges=tuple(edges.tolist()),
        counts=tuple(int(count) for count in found),
        below=int(counts[values < edges[0]].sum()),
        above=int(counts[values > edges[-1]].sum()),
    )


def longest_gap(sketch: QuantileSketch) -> Gap | None:
    """Between consecutive distinct times; to the sketch's error where that is not exact."""
    times = int64_of_key(sketch.keys)
    if times.size < 2:
        return None
    gaps = np.diff(times)
    at = int(gaps.argmax())
    return Gap(after=as_time(int(times[at])), before=as_time(int(times[at + 1])), seconds=float(gaps[at]) / 1e6)


def periods_of(times: Times) -> Periods | None:
    """Rows by the shortest period of which there are at most `MOST_PERIODS`; hours within a few days."""
    days, counts = int64_of_key(times.days.keys), times.days.counts
    if days.size == 0:
        return None
    if days[-1] - days[0] < HOURS_UP_TO:
        hours = int64_of_key(times.quantiles.keys) // 3_600_000_000
        return _periods("hour", hours, times.quantiles.counts)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    numbers: dict[Unit, NDArray[np.int64]] = {
        "day": days,
        # 1970 began on a Thursday; weeks begin on Mondays.
        "week": (days + 3) // 7,
        "month": months,
        "quarter": months // 3,
        "year": months // 12,
        "decade": (months // 12 + 1970) // 10,
    }
    for unit, found in numbers.items():
        if found[-1] - found[0] < MOST_PERIODS:
            return _periods(unit, found, counts)
    return None


def _periods(unit: Unit, numbers: NDArray[np.int64], counts: NDArray[np.int64]) -> Periods:
    first = int(numbers[0])
    by_period = np.bincount(numbers - first, weights=counts).astype(np.int64)
    starts = [_start(unit, first + i) for i in range(by_period.size)]
    return Periods(unit=unit, starts=tuple(starts), counts=tuple(by_period.tolist()))


def _start(unit: Unit, number: int) -> str:
    if unit == "hour":
        return str(np.datetime64(number, "h"))
    if unit == "decade":
        return f"{number * 10:04d}"
    if unit == "year":
        return str(np.datetime64(number, "Y"))
    if unit in ("month", "quarter"):
        return str(np.datetime64(number * (3 if unit == "quarter" else 1), "M"))
    return str(np.datetime64(number if unit == "day" else number * 7 - 3, "D"))
