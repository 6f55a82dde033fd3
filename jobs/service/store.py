"""What the service remembers: jobs, what they wait for, and every step of their lives.

A transaction a call: what a method has returned is on disk. A job changes its state only by `move`, only along
`states.MOVES`, and only if it still is in the state that the caller saw.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from treadle.errors import RequestError, TreadleError
from treadle.jobs.service.database import kept, told, writing
from treadle.jobs.service.states import MOVES, State
from treadle.jobs.service.tables import dependencies, jobs, transitions
from treadle.jobs.service.views import JobDetails, JobPage, JobView, Submission, Transition

Row = sa.RowMapping
LONGEST_BACK_OFF = 600.0
"""Seconds between two attempts at most."""


class NoSuchJob(RequestError):
    """There is no job with this id."""


class Conflict(RequestError):
    """What is asked for does not go with what is there."""


class StateChanged(TreadleError):
    """The job is no more in the state that the caller saw."""


@dataclass(frozen=True)
class Defaults:
    """What a submission that does not say gets."""

    retries: int = 2
    timeout: float | None = None


class JobStore:
    """Jobs in a database. Safe to use from many threads; one service at a time."""

    def __init__(self, engine: sa.Engine, defaults: Defaults = Defaults()) -> None:
        self.engine = engine
        self._writer = writing(engine)
        self._defaults = defaults

    def submit(
        self, submission: Submission, name: str, root: str, user: str, schedule: str | None = None
    ) -> tuple[JobView, bool]:
        """The job of a submission, and whether it is new.

        Raises
        ------
        Conflict
            The submission id is another job's.
        NoSuchJob
            It waits for a job that is not there.
        """
        text = submission.model_dump_json()
        digest = hashlib.sha256(json.dumps([root, json.loads(text)], sort_keys=True).encode()).hexdigest()
        values = {
            "name": name,
            "user": user,
            "submission_id": submission.submission_id,
            "digest": digest,
            "spec": json.dumps(submission.spec),
            "root": root,
            "priority": submission.priority,
            "timeout": submission.timeout if submission.timeout is not None else self._defaults.timeout,
            "retries": submission.retries if submission.retries is not None else self._defaults.retries,
            "fresh": False,
            "schedule": schedule,
            "state": State.QUEUED,
            "reason": "submitted",
            "attempt": 0,
            "tries": 0,
        }
        if (known := self._known(user, submission.submission_id, digest)) is not None:
            return known, False
        try:
            with told(), self._writer.begin() as connection:
                return self._insert(connection, values, submission.after), True
        except IntegrityError:
            known = self._known(user, submission.submission_id, digest)  # somebody was faster
            if known is None:
                raise
            return known, False

    def _insert(self, connection: sa.Connection, values: dict[str, Any], after: Sequence[str]) -> JobView:
        now = time.time()
        stamp = f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}"
        values |= {"id": f"{values['name']}-{stamp}-{secrets.token_hex(3)}", "created": now}
        needed = connection.execute(sa.select(jobs.c.number, jobs.c.id).where(jobs.c.id.in_(after))).all()
        if missing := sorted(set(after) - {row.id for row in needed}):
            raise NoSuchJob(f"after: there is no job '{missing[0]}'.")
        number = connection.execute(jobs.insert().values(values).returning(jobs.c.number)).scalar_one()
        if needed:
            connection.execute(dependencies.insert(), [{"job": number, "needs": row.number} for row in needed])
        self._note(connection, number, None, State.QUEUED, "submitted", now)
        return self._viewed(connection, [self._row(connection, values["id"])])[0]

    def _known(self, user: str, submission_id: str | None, digest: str) -> JobView | None:
        if submission_id is None:
            return None
        with told(), self.engine.connect() as connection:
            found = (
                connection.execute(sa.select(jobs).where(jobs.c.user == user, jobs.c.submission_id == submission_id))
                .mappings()
                .one_or_none()
            )
            if found is None:
                return None
            if found["digest"] != digest:
                raise Conflict(
                    f"submission_id: '{submission_id}' is job {found['id']}, which was submitted with another spec or "
                    "other options. Give another id for another job."
                )
            return self._viewed(connection, [found])[0]

    def view(self, job: str) -> JobView:
        """Raises NoSuchJob."""
        with told(), self.engine.connect() as connection:
            return self._viewed(connection, [self._row(connection, job)])[0]

    def details(self, job: str) -> JobDetails:
        """A job with its spec and the steps of its life; raises NoSuchJob."""
        with told(), self.engine.connect() as connection:
            row = self._row(connection, job)
            seen = self._viewed(connection, [row])[0]
            steps = connection.execute(
                sa.select(transitions).where(transitions.c.job == row["number"]).order_by(transitions.c.number)
            ).all()
        return JobDetails(
            **seen.model_dump(),
            spec=json.loads(row["spec"]),
            transitions=tuple(
                Transition(time=_moment(step.time), before=step.before, after=step.after, reason=step.reason)
                for step in steps
            ),
        )

    def page(
        self,
        states: Sequence[State] = (),
        name: str | None = None,
        user: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """Jobs, the newest first; raises RequestError when the cursor is none."""
        query = sa.select(jobs).order_by(jobs.c.number.desc()).limit(limit + 1)
        if states:
            query = query.where(jobs.c.state.in_(states))
        if name is not None:
            query = query.where(jobs.c.name == kept(name))
        if user is not None:
            query = query.where(jobs.c.user == kept(user))
        if cursor is not None:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
                raise RequestError("cursor: it is not one that a page gave as `next`.")
            query = query.where(jobs.c.number < int(cursor))
        with told(), self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
            seen = self._viewed(connection, rows[:limit])
        return JobPage(jobs=tuple(seen), next=str(rows[limit - 1]["number"]) if len(rows) > limit else None)

    def counts(self) -> dict[State, int]:
        """Jobs in each state."""
        with told(), self.engine.connect() as connection:
            found = connection.execute(sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)).all()
        return dict.fromkeys(State, 0) | {State(state): count for state, count in found}

    def oldest(self, state: State) -> float:
        """Seconds since the oldest job of a state was submitted; 0 when there is none."""
        with told(), self.engine.connect() as connection:
            first = connection.scalar(sa.select(sa.func.min(jobs.c.created)).where(jobs.c.state == state))
        return 0.0 if first is None else max(time.time() - first, 0.0)

    def rows(self, state: State) -> list[Row]:
        """Jobs in a state as they lie in the table, in the order of their submission."""
        with told(), self.engine.connect() as connection:
            query = sa.select(jobs).where(jobs.c.state == state).order_by(jobs.c.number)
            return list(connection.execute(query).mappings().all())

    def row(self, job: str) -> Row:
        """A job as it lies in the table; raises NoSuchJob."""
        with told(), self.engine.connect() as connection:
            return self._row(connection, job)

    def due(self, now: float, limit: int, per_user: int | None) -> list[Row]:
        """The queued jobs to start next: by priority, then age, when all that they wait for has succeeded."""
        needs = jobs.alias("needs")
        waits = sa.exists().where(
            dependencies.c.job == jobs.c.number,
            dependencies.c.needs == needs.c.number,
            needs.c.state != State.SUCCEEDED,
        )
        # Nothing is put off for longer than that: the clock was set back meanwhile.
        too_far = jobs.c.not_before > now + LONGEST_BACK_OFF
        query = (
            sa.select(jobs)
            .where(jobs.c.state == State.QUEUED, ~waits)
            .where(sa.or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now, too_far))
            .order_by(jobs.c.priority.desc(), jobs.c.number)
        )
        with told(), self.engine.connect() as connection:
            if per_user is None:
                return list(connection.execute(query.limit(limit)).mappings().all())
            now_running = sa.select(jobs.c.user).where(jobs.c.state == State.RUNNING)
            running = Counter(connection.scalars(now_running))
            found: list[Row] = []
            while len(found) < limit:
                full = [user for user, count in running.items() if count >= per_user]
                later = query.where(jobs.c.user.not_in(full), jobs.c.number.not_in([row["number"] for row in found]))
                row = connection.execute(later.limit(1)).mappings().one_or_none()
                if row is None:
                    break
                found.append(row)
                running[row["user"]] += 1
            return found

    def doomed(self) -> list[tuple[Row, str, State]]:
        """Queued jobs that wait for one which ended otherwise than well: the job, and that one's id and state."""
        needs = jobs.alias("needs")
        bad = [state for state in State if state.is_terminal and state is not State.SUCCEEDED]
        query = (
            sa.select(jobs, needs.c.id.label("needed"), needs.c.state.label("needed_state"))
            .join(dependencies, dependencies.c.job == jobs.c.number)
            .join(needs, dependencies.c.needs == needs.c.number)
            .where(jobs.c.state == State.QUEUED, needs.c.state.in_(bad))
            .order_by(jobs.c.number)
        )
        with told(), self.engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        once = {row["number"]: row for row in reversed(found)}
        return [(row, row["needed"], State(row["needed_state"])) for row in once.values()]

    def move(self, job: str, before: State, after: State, reason: str, **changes: Any) -> None:
        """Takes a job from one state to another, and notes when and why.

        Raises
        ------
        StateChanged
            It is in another state than `before`; nothing was changed.
        """
        if after not in MOVES[before]:
            raise ValueError(f"a job cannot get from {before} to {after}")
        now, reason = time.time(), kept(reason)
        if after.is_terminal:
            changes |= {"finished": now, "cancel": None, "not_before": None}
        with told(), self._writer.begin() as connection:
            number = connection.scalar(sa.select(jobs.c.number).where(jobs.c.id == job))
            changed = connection.execute(
                jobs.update()
                .where(jobs.c.number == number, jobs.c.state == before)
                .values(state=after, reason=reason, **changes)
            )
            if number is None or changed.rowcount != 1:
                raise StateChanged(f"job {job} is no more {before}")
            self._note(connection, number, before, after, reason, now)

    def ask_to_cancel(self, job: str, reason: str) -> bool:
        """Has a running job stopped, at the dispatcher's next step; False when it does not run."""
        with told(), self._writer.begin() as connection:
            asked = connection.execute(
                jobs.update().where(jobs.c.id == job, jobs.c.state == State.RUNNING).values(cancel=kept(reason))
            )
        return asked.rowcount == 1

    @staticmethod
    def _note(
        connection: sa.Connection, number: int, before: State | None, after: State, reason: str, now: float
    ) -> None:
        connection.execute(transitions.insert().values(job=number, time=now, before=before, after=after, reason=reason))

    @staticmethod
    def _row(connection: sa.Connection, job: str) -> Row:
        found = connection.execute(sa.select(jobs).where(jobs.c.id == kept(job))).mappings().one_or_none()
        if found is None:
            raise NoSuchJob(f"There is no job '{job}'. `treadle list` shows those that there are.")
        return found

    @staticmethod
    def _viewed(connection: sa.Connection, rows: Sequence[Row]) -> list[JobView]:
        needs = jobs.alias("needs")
        query = (
            sa.select(dependencies.c.job, needs.c.id)
            .join(needs, dependencies.c.needs == needs.c.number)
            .where(dependencies.c.job.in_([row["number"] for row in rows]))
            .order_by(needs.c.number)
        )
        after: dict[int, list[str]] = {}
        for job, needed in connection.execute(query) if rows else ():
            after.setdefault(job, []).append(needed)
        return [_view(row, tuple(after.get(row["number"], ()))) for row in rows]


def _moment(seconds: float | None) -> Any:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


_TIMES = ("created", "started", "finished", "not_before")
_PLAIN = ("id", "name", "reason", "user", "submission_id", "priority", "timeout", "retries", "attempt", "root", "run",
          "schedule")  # fmt: skip


def _view(row: Row, after: tuple[str, ...]) -> JobView:
    return JobView(
        **{name: row[name] for name in _PLAIN},
        **{name: _moment(row[name]) for name in _TIMES},
        state=State(row["state"]),
        after=after,
    )
