"""The times of schedules: cron expressions in time zones, through the days when clocks are changed.

A time that the clocks skip does not come. One that they show twice counts once, the first time; only schedules that
run in every hour run in both of these hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from croniter import croniter
from croniter.croniter import CroniterError

from treadle.errors import RequestError
from treadle.jobs.service.views import Schedule

MOST_CAUGHT_UP = 100
SET_BACK = timedelta(hours=3)
"""More than clocks are set back by."""
OUT_OF_ORDER = 2 * int(SET_BACK.total_seconds()) // 60
"""Times that may come out of order for that."""
_LONE = re.compile(r"(?<![\w-])(\w+)-\1(?:/\d+)?(?![\w-])")
"""A range of one, such as 6-6, which croniter takes for all."""


def check_times(schedule: Schedule) -> tzinfo:
    """The time zone of a schedule; raises RequestError when it or the cron expression cannot be read."""
    # Fields that croniter draws by chance (R, H) would be drawn anew at every look.
    drawn = any(part[:1] in "RrHh" for field in schedule.cron.split() for part in field.split(","))
    if drawn or not croniter.is_valid(schedule.cron) or len(schedule.cron.split()) != 5:
        raise RequestError(
            f"cron: '{schedule.cron}' cannot be read; it is minute, hour, day of the month, month and day of the "
            "week, e.g. 0 6 * * mon-fri."
        )
    try:
        croniter(schedule.cron).get_next()
    except (CroniterError, ValueError, OverflowError):
        raise RequestError(f"cron: '{schedule.cron}' is a day that never comes.") from None
    try:
        return ZoneInfo(schedule.timezone)
    except (KeyError, ValueError, OSError):
        raise RequestError(f"timezone: '{schedule.timezone}' is not known; e.g. UTC or Europe/Zurich.") from None


def times(schedule: Schedule, after: float, until: float) -> list[float]:
    """The times of a schedule in (after, until]: the newest `MOST_CAUGHT_UP` of them, in order."""
    zone = check_times(schedule)
    first = _shown(after, zone) - SET_BACK
    found: list[float] = []
    for shown, moments in _moments(schedule, zone, _shown(until, zone) + SET_BACK, "prev"):
        if shown < first or len(found) > MOST_CAUGHT_UP + OUT_OF_ORDER:
            break
        found += [moment for moment in moments if after < moment <= until]
    return sorted(found)[-MOST_CAUGHT_UP:]


def following(schedule: Schedule, now: float) -> datetime:
    """The next time of a schedule."""
    zone = check_times(schedule)
    found: list[float] = []
    last = datetime.max
    for shown, moments in _moments(schedule, zone, _shown(now, zone) - SET_BACK, "next"):
        if shown > last:
            break
        if later := [moment for moment in moments if moment > now]:
            found += later
            last = min(last, shown + SET_BACK)
    return datetime.fromtimestamp(min(found), zone)


def _shown(moment: float, zone: tzinfo) -> datetime:
    """What a clock on the wall shows."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None)


def _moments(schedule: Schedule, zone: tzinfo, begin: datetime, way: str) -> Iterator[tuple[datetime, list[float]]]:
    """What the clock shows at each time from a beginning, forward or back, and when it does."""
    cron = _LONE.sub(r"\1", schedule.cron)
    every_hour = croniter.expand(cron)[0][1] == ["*"]
    clock = croniter(cron, begin)
    while True:
        shown: datetime = clock.get_next(datetime) if way == "next" else clock.get_prev(datetime)
        both = {shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        real = sorted(moment.timestamp() for moment in both if _shown(moment.timestamp(), zone) == shown)
        yield shown, real if every_hour else real[:1]
