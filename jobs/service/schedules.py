"""Jobs that are submitted by the clock.

Each time of a schedule is a submission with an id of its own, so that it becomes one job, whatever dies in between.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from datetime import UTC, datetime

import sqlalchemy as sa

from treadle.errors import RequestError, TreadleError, did_you_mean, listed
from treadle.jobs.service.cron import check_times, following, times
from treadle.jobs.service.database import kept, told, writing
from treadle.jobs.service.service import Service
from treadle.jobs.service.tables import schedules
from treadle.jobs.service.views import Schedule, ScheduleView, Submission

LOOK_SECONDS = 5.0

log = logging.getLogger("treadle.service")


class Schedules:
    """The schedules of a service. `start` has a thread submit what is due."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._engine = service.engine
        self._writer = writing(service.engine)

    def start(self) -> None:
        """Until the service closes."""
        threading.Thread(target=self._run, name="schedules", daemon=True).start()

    def put(self, schedule: Schedule, user: str) -> ScheduleView:
        """Adds a schedule, or replaces the one of its name; its times begin now. Raises as `Service.submit`."""
        check_times(schedule)
        self._service.check(schedule.spec)
        now = time.time()
        row = {"user": user, "document": schedule.model_dump_json(), "created": now, "last": now, "submitted": None}
        with told(), self._writer.begin() as connection:
            connection.execute(schedules.delete().where(schedules.c.name == schedule.name))
            connection.execute(schedules.insert().values(name=schedule.name, **row))
        return _view(row)

    def remove(self, name: str) -> None:
        """Jobs that it has submitted stay. Raises RequestError when there is none."""
        with told(), self._writer.begin() as connection:
            if connection.execute(schedules.delete().where(schedules.c.name == kept(name))).rowcount == 0:
                names = connection.scalars(sa.select(schedules.c.name)).all()
                raise NoSuchSchedule(
                    f"There is no schedule '{name}'. Schedules: [{listed(names)}].{did_you_mean(name, names)}"
                )

    def all(self) -> list[ScheduleView]:
        """By name."""
        with told(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(schedules).order_by(schedules.c.name)).mappings().all()
        return [_view(row) for row in rows]

    def step(self, now: float) -> int:
        """Submits what is due; how many jobs that were."""
        with told(), self._engine.connect() as connection:
            rows = connection.execute(sa.select(schedules)).mappings().all()
        return sum(self._settled(row, now) for row in rows)

    def _settled(self, row: sa.RowMapping, now: float) -> int:
        """What goes wrong with one schedule keeps no other from its times, and is tried again."""
        try:
            return self._catch_up(row, now)
        except Exception as error:
            log.error("schedule %s: %s", row["name"], error, exc_info=not isinstance(error, TreadleError))
            return 0

    def _catch_up(self, row: sa.RowMapping, now: float) -> int:
        schedule = Schedule.model_validate_json(row["document"])
        due = times(schedule, row["last"], now)
        if not due:
            return 0
        late = [moment for moment in due if now - moment > 2 * LOOK_SECONDS + 60]
        wanted = {"none": [m for m in due if m not in late], "last": due[-1:], "all": due}[schedule.catch_up]
        for moment in wanted:
            submission = Submission(
                spec=schedule.spec,
                submission_id=f"{_short(schedule.name)}@{datetime.fromtimestamp(moment, UTC):%Y%m%dT%H%M%SZ}",
                priority=schedule.priority,
                timeout=schedule.timeout,
                retries=schedule.retries,
            )
            try:
                self._service.submit(submission, row["user"], schedule.name)
            except RequestError as error:  # its files are gone, say; the next time may find them
                log.error("schedule %s: %s", schedule.name, error)
        with told(), self._writer.begin() as connection:
            connection.execute(
                schedules.update()
                .where(schedules.c.name == schedule.name, schedules.c.created == row["created"])
                .values(last=due[-1], **({"submitted": wanted[-1]} if wanted else {}))
            )
        return len(wanted)

    def _run(self) -> None:
        while not self._service.closing.wait(LOOK_SECONDS):
            try:
                self.step(time.time())
            except Exception as error:  # a database that is away, say: the next step may do better
                log.error("schedules: %s", error, exc_info=not isinstance(error, TreadleError))


class NoSuchSchedule(RequestError):
    """There is no schedule of this name."""


def _short(name: str) -> str:
    """Leaves room for a time in a submission id; other names stay others."""
    return name if len(name) <= 100 else f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _view(row: sa.RowMapping | dict[str, object]) -> ScheduleView:
    schedule = Schedule.model_validate_json(str(row["document"]))
    last = row["submitted"]
    return ScheduleView(
        **schedule.model_dump(),
        user=str(row["user"]),
        created=datetime.fromtimestamp(float(str(row["created"])), UTC),
        last=None if last is None else datetime.fromtimestamp(float(str(last)), UTC),
        next=following(schedule, time.time()),
    )
