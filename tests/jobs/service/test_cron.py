"""The times of schedules, against a reference that looks at every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from treadle.errors import RequestError
from treadle.jobs.service.cron import MOST_CAUGHT_UP, check_times, following, times
from treadle.jobs.service.views import Schedule

MINUTE = 60


def scheduled(cron: str, zone: str = "UTC") -> Schedule:
    return Schedule(name="test", cron=cron, timezone=zone, spec={})


def matched(field: str, low: int, high: int) -> set[int]:
    """The numbers that a field of a cron expression names: `*`, numbers, ranges, steps and lists of them."""
    found: set[int] = set()
    for part in field.split(","):
        numbers, _, step = part.partition("/")
        first, _, last = numbers.partition("-")
        span = range(low, high + 1) if first == "*" else range(int(first), int(last or first) + 1)
        found |= set(span[:: int(step or 1)])
    return found


def slow_times(schedule: Schedule, after: datetime, until: datetime) -> list[float]:
    """What `times` has to return: a look at the clock on the wall at every minute."""
    minutes, hours, days, months, weekdays = schedule.cron.split()
    minute, hour, day, month = (
        matched(*one) for one in ((minutes, 0, 59), (hours, 0, 23), (days, 1, 31), (months, 1, 12))
    )
    weekday = {number % 7 for number in matched(weekdays, 0, 7)}
    either = "*" not in (days, weekdays)
    zone = ZoneInfo(schedule.timezone)
    found: list[float] = []
    moment = after.replace(second=0, microsecond=0)
    while moment <= until:
        clock = moment.astimezone(zone)
        days_match = (clock.day in day, clock.isoweekday() % 7 in weekday)
        right_day = (any if either else all)(days_match) and clock.month in month
        # Clocks that are set back show a time twice: the second one has fold=1.
        right_time = clock.hour in hour and clock.minute in minute and (hours == "*" or clock.fold == 0)
        if right_day and right_time and moment > after:
            found.append(moment.timestamp())
        moment += timedelta(minutes=1)
    return found[-MOST_CAUGHT_UP:]


def field(low: int, high: int) -> st.SearchStrategy[str]:
    """A field of a cron expression."""
    numbers = st.integers(low, high)
    spans = st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, 7)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    lists = st.lists(numbers.map(str) | spans, min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), numbers.map(str), spans, steps, lists)


crons = st.tuples(
    field(0, 59), field(0, 23), st.just("*") | field(1, 31), st.just("*") | field(1, 12), st.just("*") | field(0, 6)
).map(" ".join)
zones = st.sampled_from(
    ["UTC", "Europe/Zurich", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Casablanca"]
)
CHANGES = [datetime(2026, 3, 29), datetime(2026, 10, 25), datetime(2026, 4, 5), datetime(2026, 11, 1)]
moments = st.datetimes(datetime(2025, 1, 1), datetime(2028, 12, 31)) | st.sampled_from(CHANGES).flatmap(
    lambda day: st.timedeltas(timedelta(hours=-30), timedelta(hours=30)).map(lambda more: day + more)
)
spans = st.timedeltas(timedelta(0), timedelta(hours=30))


@settings(max_examples=100)
@given(cron=crons, zone=zones, after=moments, span=spans)
@example("30 2 * * *", "Europe/Zurich", datetime(2026, 10, 24, 22), timedelta(hours=24))
@example("*/20 * * * *", "Europe/Zurich", datetime(2026, 10, 24, 22), timedelta(hours=6))
@example("*/20 2 * * *", "Europe/Zurich", datetime(2026, 10, 25, 0, 50), timedelta(hours=6))
@example("30 2,3 * * *", "Europe/Zurich", datetime(2026, 3, 28, 22), timedelta(hours=24))
@example("0 0 13 * 5", "UTC", datetime(2026, 2, 12, 12), timedelta(hours=30))
def test_times_are_those_at_which_the_clock_shows_them(cron: str, zone: str, after: datetime, span: timedelta) -> None:
    schedule, begin = scheduled(cron, zone), after.replace(tzinfo=UTC)
    try:
        check_times(schedule)
    except RequestError:  # 30 February
        return
    end = begin + span
    slowly = slow_times(schedule, begin, end)
    assert times(schedule, begin.timestamp(), end.timestamp()) == slowly
    if slowly and len(slowly) < MOST_CAUGHT_UP:
        assert following(schedule, begin.timestamp()).timestamp() == slowly[0]
    else:
        assert following(schedule, begin.timestamp()) > begin


@settings(max_examples=50)
@given(cron=crons, zone=zones, after=moments, parts=st.lists(spans, max_size=4))
def test_looks_at_any_moments_find_every_time_once(
    cron: str, zone: str, after: datetime, parts: list[timedelta]
) -> None:
    schedule, looks = scheduled(cron, zone), [after.replace(tzinfo=UTC)]
    try:
        check_times(schedule)
    except RequestError:
        return
    for part in parts:
        looks.append(looks[-1] + part / 20)
    found = [
        moment for first, last in pairwise(looks) for moment in times(schedule, first.timestamp(), last.timestamp())
    ]
    assert found[-MOST_CAUGHT_UP:] == times(schedule, looks[0].timestamp(), looks[-1].timestamp())


def at(zone: str, *moment: int, fold: int = 0) -> float:
    return datetime(*moment, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[arg-type]


def test_looks_within_the_minute_find_its_time_once() -> None:
    noon = at("UTC", 2026, 11, 29, 12)
    schedule = scheduled("0 12 * * *")
    assert times(schedule, noon - 5, noon) == [noon]
    assert times(schedule, noon - 5, noon + 0.5) == [noon]
    assert times(schedule, noon, noon + 5) == []
    assert times(schedule, noon + 5, noon + 59) == []
    assert times(schedule, noon, noon - 3600) == []


def test_a_time_that_clocks_show_twice_counts_once_unless_every_hour_does() -> None:
    zone, day = "Europe/Zurich", (2026, 10, 25)
    span = at(zone, *day, 1, 59), at(zone, *day, 3, 30)
    assert times(scheduled("30 2 * * *", zone), *span) == [at(zone, *day, 2, 30)]
    assert times(scheduled("0 */2 * * *", zone), *span) == [at(zone, *day, 2)]
    half_hours = times(scheduled("*/30 * * * *", zone), *span)
    assert half_hours == [span[0] + MINUTE + 1800 * number for number in range(6)]


def test_a_time_that_clocks_skip_does_not_come() -> None:
    zone, day = "Europe/Zurich", (2026, 3, 29)
    span = at(zone, *day, 1, 59), at(zone, *day, 3, 30)
    assert times(scheduled("30 2 * * *", zone), *span) == []
    assert times(scheduled("30 2,3 * * *", zone), *span) == [at(zone, *day, 3, 30)]
    assert times(scheduled("*/30 * * * *", zone), *span) == [at(zone, *day, 3), at(zone, *day, 3, 30)]
    assert following(scheduled("30 2 * * *", zone), span[0]).isoformat() == "2026-03-30T02:30:00+02:00"


def test_only_the_newest_hundred_are_caught_up() -> None:
    until = at("Europe/Zurich", 2026, 10, 25, 2, 30, fold=1)  # in the hour that came twice
    found = times(scheduled("* * * * *", "Europe/Zurich"), 0.0, until)
    assert found == [until - MINUTE * number for number in range(MOST_CAUGHT_UP - 1, -1, -1)]


def test_names_of_days_and_months_are_read() -> None:
    monday = at("UTC", 2026, 11, 30, 6)
    assert following(scheduled("0 6 * nov mon-fri"), monday - 1).timestamp() == monday
    assert following(scheduled("0 6 29 feb *"), monday).isoformat() == "2028-02-29T06:00:00+00:00"


@pytest.mark.parametrize(
    "cron",
    ["every day at 6", "0 6 * * mon-fry", "60 6 * * *", "0 24 * * *", "10 16 * *", "0 6 * * * *", "0 6 * * * * 2026",
     "@daily   ", "H H * * *", "0 6 0 * *", "0 6 32 * *", "0-70 * * * *", "*/0 * * * *", "0 6 * * ?*", "\0 6 * * *"],
)  # fmt: skip
def test_an_expression_that_cannot_be_read_is_refused(cron: str) -> None:
    with pytest.raises(RequestError) as told:
        check_times(scheduled(cron))
    assert "cannot be read; it is minute, hour, day of the month, month and day of the week" in str(told.value)
    assert str(told.value).startswith(f"cron: '{cron}'")


@pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *"])
def test_a_day_that_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(RequestError, match="is a day that never comes."):
        check_times(scheduled(cron))


@pytest.mark.parametrize(
    "zone", ["", "Europe", "Europe/Zürich", "CEST", "../../etc/passwd", "/etc/passwd", "\0", "x" * 64]
)
def test_a_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(RequestError) as told:
        check_times(scheduled("0 6 * * *", zone))
    assert str(told.value) == f"timezone: '{zone}' is not known; e.g. UTC or Europe/Zurich."
