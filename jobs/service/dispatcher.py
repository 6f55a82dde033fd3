"""The dispatcher: starts drivers for what is due, and notices how they end.

One thread, which makes a step whenever something happens and a few times a second. All it knows lies in the store
and in the jobs' folders, so that a service that was killed goes on where it was: drivers that live are watched
further, and those that died meanwhile are started again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.errors import TreadleError
from treadle.jobs.service.bell import Bell
from treadle.jobs.service.beside import Beside
from treadle.jobs.service.folders import JobFolder, Order, Outcome
from treadle.jobs.service.nursery import Nursery
from treadle.jobs.service.settings import Settings
from treadle.jobs.service.states import State
from treadle.jobs.service.store import LONGEST_BACK_OFF, JobStore, Row, StateChanged

STEP_SECONDS = 0.25
START_SECONDS = 30.0
"""Until a driver that was started has locked its folder."""
ADOPT_SECONDS = 3.0
"""The same of one that an earlier service started."""
STOP_SECONDS = 3.0
"""Between the request to stop and the kill."""
PUBLISH_SECONDS = 60.0
"""The same while it publishes, which is not to be cut in two."""
GONE_SECONDS = 3.0
"""Between the end of a driver and the news of its wait status, which a nursery that died does not bring."""
LINGER_SECONDS = 10.0
"""That a driver may take to end after its last word."""

log = logging.getLogger("treadle.service")


@dataclass
class Attempt:
    """An attempt that is under way, as far as this service has seen it."""

    job: str
    number: int
    folder: JobFolder
    since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    """When the newest sign of life was seen."""
    elapsed: float | None = None
    """What it said."""
    status: int | None = None
    """Its wait status, when it is known to have ended."""
    pid: int | None = None
    """Its process, when this service started it."""
    gone: float | None = None
    """When its lock was first seen to be free."""
    lived: bool = False
    stopping: str | None = None
    """Why it is being stopped."""
    timed_out: bool = False
    stopped: float = 0.0
    """When it was asked to stop."""
    killed: str | None = None
    """Why it was killed."""


class Dispatcher:
    """Runs jobs. `start` begins it, `close` ends it; drivers live on."""

    def __init__(self, store: JobStore, settings: Settings, jobs: Path, nursery_log: Path, beside: Beside, bell: Bell):
        self._store = store
        self._settings = settings
        self._jobs = jobs
        self._beside = beside
        self._bell = bell
        self.nursery = Nursery(nursery_log, self._ended)
        self._attempts: dict[str, Attempt] = {}
        self._statuses: dict[int, int] = {}
        """Wait statuses by process id, as they come in on another thread, until the next step."""
        self._done = False
        self._draining = False
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self, make_sure: Callable[[], None]) -> None:
        """Finds the attempts that an earlier service began, and begins to make steps.

        Before each of them `make_sure` raises an exception when another service may have the database.
        """
        self._make_sure = make_sure
        for row in self._store.rows(State.RUNNING):
            attempt = Attempt(row["id"], row["attempt"], self.folder(row["id"]))
            # The nursery that started it died with its service: what has not locked its folder soon never will.
            attempt.since -= START_SECONDS - ADOPT_SECONDS
            self._attempts[row["id"]] = attempt
        self._thread.start()

    def close(self) -> None:
        """Returns when the last step is made."""
        self._done = True
        self._bell.ring()
        self._thread.join()
        self.nursery.close()

    def drain(self) -> None:
        """Stops all drivers and starts none; their jobs are queued again. Returns when they have ended."""
        self._draining = True
        seen = self._bell.count
        while self._attempts and self._thread.is_alive():
            seen = self._bell.wait(seen, STEP_SECONDS)

    def folder(self, job: str) -> JobFolder:
        """Where the job's driver writes."""
        return JobFolder(self._jobs / job)

    def _ended(self, pid: int, status: int) -> None:
        self._statuses[pid] = status
        self._bell.ring()

    def _run(self) -> None:
        seen = self._bell.count
        while not self._done:
            try:
                self._make_sure()
                changed = self.step()
            except Exception as error:  # a full disk, a database that is away: the next step may do better
                log.error("a step failed, and is made again: %s", error, exc_info=not isinstance(error, TreadleError))
                time.sleep(1.0)
                continue
            if changed:
                self._bell.ring()
            seen = self._bell.wait(seen, STEP_SECONDS)

    def step(self) -> bool:
        """Does everything that is to be done now; whether a job changed its state.

        Raises
        ------
        Exception
            The first that a job gave rise to, when all others have been looked at: no job holds up the rest.
        """
        changed, errors = False, []
        ended = {pid: self._statuses.pop(pid) for pid in list(self._statuses)}
        for attempt in list(self._attempts.values()):
            if attempt.pid in ended:
                attempt.status = ended[attempt.pid]
            try:
                changed |= self._look_at(attempt)
            except Exception as error:
                errors.append(error)
        for row, needed, state in self._store.doomed():
            changed |= self._move(
                row["id"], State.QUEUED, State.CANCELLED, f"it waits for job {needed}, which is {state}"
            )
        free = self._settings.max_running - len(self._attempts)
        if free > 0 and not self._draining and (profile := self._beside.ready()) is not None:
            for row in self._store.due(time.time(), free, self._settings.max_running_per_user):
                try:
                    changed |= self._begin(row, profile)
                except Exception as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return changed

    def _begin(self, row: Row, profile: Mapping[str, Any]) -> bool:
        """Starts a driver. The store has the attempt first: whatever happens then, it is noticed."""
        job, number = row["id"], row["attempt"] + 1
        folder = self.folder(job)
        order = Order(
            job,
            json.loads(row["spec"]),
            row["root"],
            self._settings.allowed,
            row["fresh"] and row["tries"] == 0,  # what the first attempt did is not done again by the next
            profile,
            self._settings.closed(self._jobs.parent),
        )
        folder.prepare(order, number)
        started = {"attempt": number, "tries": row["tries"] + 1, "started": time.time(), "not_before": None}
        if not self._move(job, State.QUEUED, State.RUNNING, f"attempt {number}", **started):
            return False
        attempt = self._attempts[job] = Attempt(job, number, folder)
        try:
            attempt.pid = self.nursery.start("drive", str(folder.path), number, log=folder.log)
        except TreadleError as error:
            attempt.killed = str(error)
            attempt.status = -1
        # Only now: the nursery may have had to start first, for seconds.
        attempt.since = attempt.heard = time.monotonic()
        return True

    def _look_at(self, attempt: Attempt) -> bool:
        """Whether the attempt is over."""
        folder, now = attempt.folder, time.monotonic()
        alive = folder.is_alive()
        attempt.lived |= alive
        outcome = folder.outcome(attempt.number)
        if not alive:
            if outcome is None and attempt.status is None and not attempt.lived and now - attempt.since < START_SECONDS:
                return False  # it is about to lock its folder
            if outcome is None and not self._has_ended(attempt, now):
                return False
            return self._conclude(attempt, folder.close(attempt.number))
        if outcome is not None:
            if now - attempt.heard > LINGER_SECONDS:
                self._signal(attempt, signal.SIGKILL)
            return False
        elapsed = folder.elapsed()
        if elapsed != attempt.elapsed:
            attempt.elapsed, attempt.heard = elapsed, now
        self._stop_if_due(attempt, now)
        return False

    def _has_ended(self, attempt: Attempt, now: float) -> bool:
        """Whether a driver without a lock is gone; one that lost its folder may live on, and is killed."""
        if attempt.pid is None or attempt.status is not None:
            return True
        attempt.gone = attempt.gone or now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(attempt.pid, signal.SIGKILL)
        return now - attempt.gone > GONE_SECONDS

    def _stop_if_due(self, attempt: Attempt, now: float) -> None:
        row = self._store.row(attempt.job)
        if attempt.stopping is None:
            if now - attempt.heard > self._settings.silence:
                attempt.killed = f"its driver gave no sign of life for {now - attempt.heard:.0f} s"
                self._signal(attempt, signal.SIGKILL)
                return
            attempt.timed_out = row["timeout"] is not None and (attempt.elapsed or 0.0) > row["timeout"]
            if attempt.timed_out:
                attempt.stopping = f"attempt {attempt.number} took longer than {row['timeout']:g} s"
            elif row["cancel"] is not None:
                attempt.stopping = row["cancel"]
            elif self._draining:
                attempt.stopping = "the service was stopped; it goes on when the service starts again"
            elif self._beside.has_lost(attempt.folder.order().cluster):
                attempt.stopping = "the cluster that it ran on is gone"
            else:
                return
            attempt.stopped = now
            self._signal(attempt, signal.SIGTERM)
            return
        patience = PUBLISH_SECONDS if attempt.folder.is_publishing() else STOP_SECONDS
        if now - attempt.stopped > patience:
            self._signal(attempt, signal.SIGKILL)

    def _signal(self, attempt: Attempt, number: signal.Signals) -> None:
        """To the driver and everything that it started. Its lock is held, so the process id is its own."""
        pid = attempt.folder.pid(attempt.number)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)

    def _conclude(self, attempt: Attempt, outcome: Outcome | None) -> bool:
        row = self._store.row(attempt.job)
        after, reason, changes = self._verdict(row, attempt, outcome)
        moved = self._move(attempt.job, State.RUNNING, after, reason, **changes)
        del self._attempts[attempt.job]
        if after is State.QUEUED and (asked := self._store.row(attempt.job)["cancel"]) is not None:
            self._move(attempt.job, State.QUEUED, State.CANCELLED, asked)  # somebody asked in this moment
        if after is not State.SUCCEEDED:
            self._free_workers()
        return moved

    def _verdict(self, row: Row, attempt: Attempt, outcome: Outcome | None) -> tuple[State, str, dict[str, Any]]:
        """What becomes of a job whose attempt is over: its state, why, and what else changes."""
        if outcome is not None and outcome.succeeded:
            return State.SUCCEEDED, "done", {"run": attempt.job}
        if attempt.timed_out:
            return State.TIMED_OUT, attempt.stopping or "", {}
        if row["cancel"] is not None:
            return State.CANCELLED, row["cancel"], {}
        if self._draining and attempt.stopping is not None:
            return State.QUEUED, attempt.stopping, {"tries": row["tries"] - 1}
        if outcome is not None and outcome.fault in ("spec", "unknown"):
            return State.FAILED, outcome.reason, {}
        if outcome is None:
            reason = attempt.killed or attempt.stopping or f"its driver died{_of(attempt.status)}"
        elif outcome.cancelled:
            reason = attempt.stopping or "its driver was told to stop"
        else:
            reason = outcome.reason
        if row["tries"] > row["retries"]:
            spent = f"{reason}; attempts are spent ({row['tries']})"
            return (State.LOST if outcome is None else State.FAILED), spent, {}
        wait = min(self._settings.back_off * 2 ** (row["tries"] - 1), LONGEST_BACK_OFF)
        return State.QUEUED, f"{reason}; next attempt in {wait:g} s", {"not_before": time.time() + wait}

    def _free_workers(self) -> None:
        """Workers may still compute what the driver wanted."""
        profile = self._beside.ready()
        if profile is not None:
            with contextlib.suppress(TreadleError):
                self.nursery.start("free", json.dumps(profile), log=self._beside.log)

    def _move(self, job: str, before: State, after: State, reason: str, **changes: Any) -> bool:
        try:
            self._store.move(job, before, after, reason, **changes)
        except StateChanged:
            return False  # somebody was faster: a queued job was cancelled, say
        log.info("job %s is %s: %s", job, after, reason)
        return True


def _of(status: int | None) -> str:
    if status is None or status == -1:
        return ""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f" with exit status {code}"
    hint = "; the system may have run out of memory" if -code == signal.SIGKILL else ""
    return f" by {signal.Signals(-code).name}{hint}"
