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

PARTS = ("year", "month", "day", "dayofyear", "weekday", "quarter", "week", "hour", "minute", "second")
YEAR, MONTH, DAY, DAYOFYEAR, WEEKDAY, QUARTER, WEEK, HOUR, MINUTE, SECOND = range(len(PARTS))
"""Those up to WEEKDAY are fields as they are."""
FIELDS, TILE = 6, 256
_DAY, _SECOND = np.uint64(86_400_000_000), np.uint64(1_000_000)
ERAS = np.int32(726)
_SHIFT = np.uint64(106_751_992)
"""Days by which all times become positive; from there to a first of March, `ERAS` before that of the year 0."""
_FROM_MARCH = np.uint32(719_468 - 106_751_992 + 726 * 146_097)
_FROM_MONDAY = np.uint32((3 - 106_751_992) % 7)
_ERA, _YEAR = np.uint32(146_097), np.uint32(365)
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
def _date_parts(times, parts, out):  # type: ignore[no-untyped-def]
    fields, days = np.empty((FIELDS, TILE), np.int32), np.empty(TILE, np.uint32)
    for low in range(0, len(times), TILE):
        rows = min(TILE, len(times) - low)
        _fields(times[low : low + rows], days, fields)
        null = False
        for i in range(low, low + rows):
            null |= times[i] == _NULL
        for k in range(len(parts)):
            values = out[k, low : low + rows]
            _part(parts[k], fields, values)
            if null:
                for i in range(rows):
                    if times[low + i] == _NULL:
                        values[i] = np.nan


@numba.njit(nogil=True, cache=True)
def _part(part, fields, values):  # type: ignore[no-untyped-def]
    year, month, _, ordinal, weekday, second = fields
    if part <= WEEKDAY:
        for i in range(len(values)):
            values[i] = fields[part, i]
    elif part == QUARTER:
        for i in range(len(values)):
            values[i] = (month[i] + np.int32(2)) // np.int32(3)
    elif part == WEEK:
        for i in range(len(values)):
            values[i] = _week(year[i], ordinal[i], weekday[i])
    elif part == HOUR:
        for i in range(len(values)):
            values[i] = second[i] // np.int32(3600)
    elif part == MINUTE:
        for i in range(len(values)):
            values[i] = second[i] // np.int32(60) % np.int32(60)
    else:
        for i in range(len(values)):
            values[i] = second[i] % np.int32(60)


@numba.njit(nogil=True, cache=True)
def _fields(times, days, fields):  # type: ignore[no-untyped-def]
    """Year, month, day, day of the year, weekday and second of the day of some times, by line.

    Without signs, and in 32 bits as soon as days are counted: such divisions are multiplications of vectors.
    """
    year, month, day, ordinal, weekday, second = fields
    for i in range(len(times)):
        time = np.uint64(times[i]) + _SHIFT * _DAY
        count = time // _DAY
        days[i] = np.uint32(count)
        second[i] = np.int32((time - count * _DAY) // _SECOND)
    for i in range(len(times)):
        # Years that begin in March, so that a leap day is the last of its year; eras are 400 of them.
        shifted = days[i] + _FROM_MARCH
        era = shifted // _ERA
        of_era = shifted - era * _ERA
        years = (
            of_era - of_era // np.uint32(1460) + of_era // np.uint32(36_524) - of_era // np.uint32(146_096)
        ) // _YEAR
        of_year = of_era - (_YEAR * years + years // np.uint32(4) - years // np.uint32(100))
        from_march = (np.uint32(5) * of_year + np.uint32(2)) // np.uint32(153)
        early = from_march < np.uint32(10)
        year[i] = np.int32(years) + (np.int32(era) - ERAS) * np.int32(400) + np.int32(not early)
        month[i] = np.int32(from_march) + np.int32(3 if early else -9)
        day[i] = np.int32(of_year - (np.uint32(153) * from_march + np.uint32(2)) // np.uint32(5)) + np.int32(1)
        leap = years % np.uint32(4) == 0 and (years % np.uint32(100) != 0 or years == 0)
        ordinal[i] = np.int32(of_year) + np.int32(60 + leap if early else -305)
        weekday[i] = np.int32((days[i] + _FROM_MONDAY) % np.uint32(7))


@numba.njit(nogil=True, cache=True, forceinline=True)
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
