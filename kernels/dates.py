"""Parts of times, many of one time at once.

Days become dates by the arithmetic of Howard Hinnant, "chrono-compatible low-level date algorithms"
(2013), in the proleptic Gregorian calendar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.counting import read_only

PARTS = ("year", "quarter", "month", "day", "dayofyear", "weekday", "week", "hour", "minute", "second")
YEAR, QUARTER, MONTH, DAY, DAYOFYEAR, WEEKDAY, WEEK, HOUR, MINUTE, SECOND = range(len(PARTS))
_DAY = 86_400_000_000
_NULL = np.iinfo(np.int64).min


def date_parts(times: NDArray[Any], parts: Sequence[str]) -> NDArray[np.float64]:
    """(parts, times) float64 of datetime64[us]; NaN for NaT.

    `weekday` is 0 on Mondays; `week` is that of ISO 8601, whose first has the year's first Thursday.
    """
    out = np.empty((len(parts), len(times)), dtype=np.float64)
    codes = np.array([PARTS.index(part) for part in parts], dtype=np.int64)
    _date_parts(read_only(np.ascontiguousarray(times).view(np.int64)), codes, out)
    return out


@numba.njit(nogil=True, cache=True)
def _date_parts(times: Any, parts: Any, out: Any) -> None:
    for i in range(len(times)):
        if times[i] == _NULL:
            for k in range(len(parts)):
                out[k, i] = np.nan
            continue
        days = times[i] // _DAY
        second = np.int32((times[i] - days * _DAY) // 1_000_000)
        # Years that begin in March, so that a leap day is the last of its year.
        shifted = days + 719_468
        era = shifted // 146_097
        day_of_era = np.int32(shifted - era * 146_097)
        year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
        year = year_of_era + era * 400
        of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
        march_month = (5 * of_year + 2) // 153
        day = of_year - (153 * march_month + 2) // 5 + 1
        month = march_month + 3 if march_month < 10 else march_month - 9
        leap = year_of_era % 4 == 0 and (year_of_era % 100 != 0 or year_of_era % 400 == 0)
        if month <= 2:
            year += 1
            ordinal = of_year - 305
        else:
            ordinal = of_year + 60 + leap
        weekday = (days + 3) % 7
        for k in range(len(parts)):
            part = parts[k]
            value: Any = np.int64(0)
            if part == YEAR:
                value = year
            elif part == QUARTER:
                value = (month + 2) // 3
            elif part == MONTH:
                value = month
            elif part == DAY:
                value = day
            elif part == DAYOFYEAR:
                value = ordinal
            elif part == WEEKDAY:
                value = weekday
            elif part == WEEK:
                value = _week(year, ordinal, weekday)
            elif part == HOUR:
                value = second // 3600
            elif part == MINUTE:
                value = second // 60 % 60
            else:
                value = second % 60
            out[k, i] = value


@numba.njit(nogil=True, cache=True)
def _is_leap(year):  # type: ignore[no-untyped-def]
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


@numba.njit(nogil=True, cache=True)
def _week(year, ordinal, weekday):  # type: ignore[no-untyped-def]
    """The ISO week of a day, by its number in the year, from 1, and its weekday, from 0."""
    week = (ordinal - weekday + 9) // 7
    first = (weekday - ordinal + 1) % 7
    if week < 1:
        before = (first - 365 - _is_leap(year - 1)) % 7
        return 53 if before == 3 or (before == 2 and _is_leap(year - 1)) else 52
    if week == 53 and not (first == 3 or (first == 2 and _is_leap(year))):
        return 1
    return week
