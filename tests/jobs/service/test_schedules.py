"""Schedules of a service whose dispatcher does not run: what is submitted, and when."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.jobs.service.served import small_spec, until
from treadle.errors import RequestError, StorageError
from treadle.jobs.problems import SpecError
from treadle.jobs.service import schedules as module
from treadle.jobs.service import tables
from treadle.jobs.service.database import migrate
from treadle.jobs.service.schedules import NoSuchSchedule, Schedules
from treadle.jobs.service.service import Service
from treadle.jobs.service.settings import Settings
from treadle.jobs.service.states import State
from treadle.jobs.service.views import JobView, Schedule

HOUR = 3600.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    home = tmp_path / "home"
    home.mkdir()
    made = Service(Settings(root=str(tmp_path / "artifacts"), allow_roots=(str(tmp_path),)), home)
    migrate(made.engine)
    yield made
    made.closing.set()
    made.engine.dispose()


@pytest.fixture
def schedules(service: Service) -> Schedules:
    return Schedules(service)


@pytest.fixture
def begin() -> float:
    """The hour that comes: schedules begin before it."""
    left = HOUR - time.time() % HOUR
    if left < 20:
        time.sleep(left)
    return (time.time() // HOUR + 1) * HOUR


def hourly(name: str = "hourly", **changes: Any) -> Schedule:
    return Schedule(**{"name": name, "cron": "0 * * * *", "spec": small_spec(name), **changes})


def jobs(service: Service, name: str = "hourly") -> list[JobView]:
    """Those that a schedule has submitted, the oldest first."""
    return list(service.store.page(name=name, limit=500).jobs[::-1])


def times_of(service: Service, name: str = "hourly") -> list[float]:
    """The times that they were submitted for."""
    ids = [str(job.submission_id).rpartition("@")[2] for job in jobs(service, name)]
    return [datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() for text in ids]


def test_a_time_is_one_job_however_often_one_looks(service: Service, schedules: Schedules, begin: float) -> None:
    schedules.put(hourly(priority=3, timeout=60.0, retries=1), "ana")
    looks = [begin - 1, begin, begin + 5, begin + 59, begin + 61, begin + HOUR - 1]
    assert [schedules.step(now) for now in looks] == [0, 1, 0, 0, 0, 0]
    assert times_of(service) == [begin]
    job = jobs(service)[0]
    assert (job.user, job.schedule, job.priority, job.timeout, job.retries) == ("ana", "hourly", 3, 60.0, 1)
    assert job.state is State.QUEUED
    assert schedules.step(begin + HOUR + 2.5) == 1
    assert times_of(service) == [begin, begin + HOUR]
    (view,) = schedules.all()
    assert view.last is not None
    assert view.last.timestamp() == begin + HOUR


@pytest.mark.parametrize(
    ("catch_up", "missed"), [("none", [5]), ("last", [5]), ("all", [0, 1, 2, 3, 4, 5])], ids=["none", "last", "all"]
)
def test_missed_times_are_caught_up_as_the_schedule_says(
    service: Service, schedules: Schedules, begin: float, catch_up: str, missed: list[int]
) -> None:
    schedules.put(hourly(catch_up=catch_up), "ana")
    schedules.step(begin + 5 * HOUR + 3)  # the service was away, and the newest time is just now
    assert times_of(service) == [begin + number * HOUR for number in missed]
    schedules.step(begin + 6 * HOUR + 3)
    assert times_of(service)[len(missed) :] == [begin + 6 * HOUR]


@pytest.mark.parametrize(("catch_up", "caught"), [("none", 0), ("last", 1), ("all", 6)])
def test_times_that_are_all_long_ago(
    service: Service, schedules: Schedules, begin: float, catch_up: str, caught: int
) -> None:
    schedules.put(hourly(catch_up=catch_up), "ana")
    late = begin + 5.5 * HOUR
    assert schedules.step(late) == caught
    assert schedules.step(late + 1) == 0  # those that were let pass are settled
    assert times_of(service) == [begin + number * HOUR for number in range(6)][6 - caught :]


def test_no_more_than_a_hundred_are_caught_up(service: Service, schedules: Schedules, begin: float) -> None:
    schedules.put(hourly(catch_up="all"), "ana")
    assert schedules.step(begin + 300 * HOUR) == 100
    assert times_of(service) == [begin + number * HOUR for number in range(201, 301)]


def test_a_service_that_dies_before_it_notes_a_time_submits_it_once(
    service: Service, schedules: Schedules, begin: float
) -> None:
    schedules.put(hourly(catch_up="all"), "ana")
    with service.engine.connect() as connection:
        before = connection.execute(sa.select(tables.schedules)).mappings().one()
    schedules.step(begin + HOUR)
    known = jobs(service)
    with service.engine.begin() as connection:
        connection.execute(tables.schedules.update().values(last=before["last"], submitted=None))
    Schedules(service).step(begin + 2 * HOUR)
    assert jobs(service)[:2] == known
    assert times_of(service) == [begin, begin + HOUR, begin + 2 * HOUR]


def test_two_that_look_at_once_submit_one_job(service: Service, schedules: Schedules, begin: float) -> None:
    schedules.put(hourly(), "ana")
    together = threading.Barrier(4)

    def look() -> None:
        together.wait()
        Schedules(service).step(begin)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times_of(service) == [begin]


def test_a_clock_that_jumps_back_submits_nothing_again(service: Service, schedules: Schedules, begin: float) -> None:
    schedules.put(hourly(catch_up="all"), "ana")
    schedules.step(begin + 3 * HOUR)
    for now in (begin, begin + HOUR, begin + 3 * HOUR, begin - 100 * HOUR):
        assert schedules.step(now) == 0
    assert schedules.step(begin + 4 * HOUR) == 1
    assert times_of(service) == [begin + number * HOUR for number in range(5)]


def test_a_schedule_that_is_replaced_begins_now(service: Service, schedules: Schedules, begin: float) -> None:
    schedules.put(hourly(), "ana")
    view = schedules.put(hourly(cron="30 * * * *", timezone="Asia/Kathmandu"), "ben")
    assert (view.user, view.last, view.next.timestamp() % HOUR) == ("ben", None, 2700.0)
    assert [one.cron for one in schedules.all()] == ["30 * * * *"]
    schedules.step(begin + HOUR)
    assert [moment % HOUR for moment in times_of(service)] == [2700.0]  # this zone is 5:45 ahead


def test_one_that_was_removed_submits_nothing_and_its_jobs_stay(
    service: Service, schedules: Schedules, begin: float
) -> None:
    schedules.put(hourly(), "ana")
    schedules.step(begin)
    schedules.remove("hourly")
    assert schedules.all() == []
    assert schedules.step(begin + HOUR) == 0
    assert times_of(service) == [begin]


def test_long_names_that_begin_alike_are_schedules_of_their_own(
    service: Service, schedules: Schedules, begin: float
) -> None:
    for end in "ab":
        schedules.put(hourly("x" * 127 + end, spec=small_spec(f"job-{end}")), "ana")
    assert schedules.step(begin) == 2
    assert len(jobs(service, "job-a")) == len(jobs(service, "job-b")) == 1


def test_a_schedule_whose_files_are_gone_keeps_none_from_its_times(
    service: Service, schedules: Schedules, begin: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("a,b\n1,2\n")
    schedules.put(hourly("broken", spec=small_spec("broken", data={"path": str(data), "target": "b"})), "ana")
    schedules.put(hourly(), "ana")
    data.unlink()
    data.symlink_to("/etc/passwd")
    with caplog.at_level(logging.ERROR, "treadle.service"):
        schedules.step(begin)
    assert (times_of(service), jobs(service, "broken")) == ([begin], [])
    assert "schedule broken: data.path: " in caplog.text
    data.unlink()
    data.write_text("a,b\n1,2\n")
    schedules.step(begin + HOUR)
    assert times_of(service, "broken") == [begin + HOUR]


def test_a_document_that_cannot_be_read_keeps_none_from_its_times(
    service: Service, schedules: Schedules, begin: float, caplog: pytest.LogCaptureFixture
) -> None:
    schedules.put(hourly("alien"), "ana")
    schedules.put(hourly(), "ana")
    with service.engine.begin() as connection:
        connection.execute(tables.schedules.update().where(tables.schedules.c.name == "alien").values(document="{}"))
    schedules.step(begin)
    assert times_of(service) == [begin]
    assert "schedule alien: " in caplog.text


def test_the_thread_outlives_a_database_that_is_away(
    service: Service, schedules: Schedules, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.05)
    schedules.put(hourly("every-minute", cron="* * * * *", spec=small_spec("hourly")), "ana")
    with service.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE schedules RENAME TO away")
    with pytest.raises(StorageError, match="no such table: schedules"):
        schedules.step(time.time())
    with caplog.at_level(logging.ERROR, "treadle.service"):
        schedules.start()
        until(lambda: caplog.text.count("schedules: The job store cannot be used") > 1, 20)
    with service.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO schedules")
        connection.execute(tables.schedules.update().values(last=time.time() - 60))
    until(lambda: jobs(service), 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cron": "0 25 * * *"}, "cron: '0 25 * * *' cannot be read; it is minute, hour"),
        ({"cron": "0 0 30 2 *"}, "cron: '0 0 30 2 *' is a day that never comes."),
        ({"timezone": "Europe/Zurck"}, "timezone: 'Europe/Zurck' is not known; e.g. UTC or Europe/Zurich."),
        ({"spec": small_spec(data={"path": "/etc/passwd", "target": "a"})}, "data.path: /etc/passwd is outside"),
        ({"spec": small_spec(cluster={"profile": "ssh", "hosts": ["localhost"]})}, "cluster.profile: 'ssh', but jobs"),
    ],
)  # fmt: skip
def test_a_schedule_that_is_wrong_is_refused(schedules: Schedules, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as told:
        schedules.put(hourly(**change), "ana")
    assert str(told.value).startswith(message)
    assert schedules.all() == []


def test_a_schedule_of_a_wrong_spec_is_refused_and_the_one_before_stays(schedules: Schedules) -> None:
    before = schedules.put(hourly(), "ana")
    with pytest.raises(SpecError, match="modls"):
        schedules.put(hourly(spec=small_spec(modls=["ridge"])), "ana")
    assert [one.created for one in schedules.all()] == [before.created]


def test_a_schedule_that_is_not_there_is_told_with_those_that_are(schedules: Schedules) -> None:
    schedules.put(hourly(), "ana")
    with pytest.raises(NoSuchSchedule, match=r"no schedule 'hurly'. Schedules: \[hourly\]. Did you mean 'hourly'\?"):
        schedules.remove("hurly")
