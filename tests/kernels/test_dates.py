"""Parts of times: against Python's calendar."""

from __future__ import annotations

import datetime as dt

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.dates import PARTS, date_parts

EDGES = [
    dt.datetime(y, m, d) for y in range(1890, 2110) for m, d in ((1, 1), (1, 4), (2, 28), (3, 1), (12, 28), (12, 31))
]


def parts_of(time: dt.datetime) -> dict[str, int]:
    return {
        "year": time.year,
        "month": time.month,
        "day": time.day,
        "dayofyear": time.timetuple().tm_yday,
        "weekday": time.weekday(),
        "quarter": (time.month + 2) // 3,
        "week": time.isocalendar().week,
        "hour": time.hour,
        "minute": time.minute,
        "second": time.second,
    }


def agrees(times: list[dt.datetime]) -> None:
    found = date_parts(np.array(times, dtype="datetime64[us]"), PARTS)
    expected = [list(parts_of(time).values()) for time in times]
    assert list(parts_of(times[0])) == list(PARTS)
    np.testing.assert_array_equal(found.T, expected)


@settings(deadline=None)  # The first example compiles.
@given(st.lists(st.datetimes(), min_size=1, max_size=20))
def test_any_time(times: list[dt.datetime]) -> None:
    agrees(times)


def test_ends_of_years() -> None:
    agrees(EDGES)


def test_null_and_the_order_asked_for() -> None:
    times = np.array(["NaT", "2024-02-29T23:59:58.999999", "1969-12-31T23:59:59"], dtype="datetime64[us]")
    found = date_parts(times, ["second", "year"])
    np.testing.assert_array_equal(found, [[np.nan, 58, 59], [np.nan, 2024, 1969]])
    assert date_parts(times[:0], ["week"]).shape == (1, 0)
