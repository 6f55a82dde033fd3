"""Jobs without a service: each is a process of this machine that the client starts and ends."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from treadle.errors import RequestError, listed
from treadle.jobs.client.errors import Conflict, NotFound
from treadle.jobs.client.local_job import LocalJob
from treadle.jobs.client.requests import AnySpec, document_of, submission_of, wanted_of
from treadle.jobs.client.target import target_of
from treadle.jobs.service.states import State
from treadle.jobs.spec import root_of

if TYPE_CHECKING:
    from treadle.jobs.service.views import ClusterView, Health, ScheduleView


class LocalClient:
    """As `Client`, without a service. Jobs run at once, beside each other; closing it cancels those that run."""

    def __init__(self, root: str | None = None) -> None:
        self.target = target_of("http://127.0.0.1")
        self._root = root
        self._folder = tempfile.TemporaryDirectory(prefix="treadle-", ignore_cleanup_errors=True)
        self._jobs: dict[str, LocalJob] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancels what runs, and forgets the jobs; what they published stays."""
        running = [job for job in self._jobs.values() if not job.status().is_terminal]
        for job in running:
            job.cancel()
        for job in running:
            job.wait(check=False)
        self._folder.cleanup()

    def submit(
        self,
        spec: AnySpec,
        *,
        submission_id: str | None = None,
        priority: int = 0,
        timeout: float | None = None,
        retries: int | None = None,
        after: Sequence[str | LocalJob] = (),
        overrides: Sequence[str] = (),
    ) -> LocalJob:
        """Starts a job. There is no queue: `priority` changes nothing, and `after` and `retries` are refused."""
        if after or retries:
            named = "after" if after else "retries"
            raise RequestError(
                f"submit: {named} needs a service, which Client.local is none of; start one: treadle up."
            )
        document = document_of(spec, self.target, overrides)
        submission = submission_of(document, submission_id, priority, timeout, None, ())
        for known in self._jobs.values():
            if known.submission.submission_id == submission.submission_id:
                if known.submission != submission:
                    raise Conflict(f"submission_id '{submission_id}' is that of another job, {known.id}.", 409)
                return known
        job_id = f"{document['name']}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        root = root_of(self._root or document.get("artifacts", {}).get("root"))
        job = LocalJob(job_id, submission, root, Path(self._folder.name) / job_id)
        self._jobs[job_id] = job
        return job

    def job(self, job_id: str) -> LocalJob:
        """A job of this client; `NotFound` when there is none."""
        if job_id not in self._jobs:
            raise NotFound(f"There is no job '{job_id}' of this client.", 404)
        return self._jobs[job_id]

    def find(self, start: str) -> LocalJob:
        """A job of this client by the start of its id that no other has."""
        found = [job_id for job_id in self._jobs if job_id.startswith(start)]
        if len(found) > 1 and start not in found:
            raise RequestError(f"{len(found)} jobs start with '{start}': [{listed(found)}]. Give more of the id.")
        return self.job(found[0] if len(found) == 1 else start)

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        name: str | None = None,
        user: str | None = None,
        limit: int | None = None,
    ) -> Iterator[LocalJob]:
        """The jobs of this client, the newest first."""
        wanted = wanted_of(state, name, user)
        views = [(job, job.view()) for job in reversed(self._jobs.values())]
        found = [
            job
            for job, view in views
            if view.state in wanted.get("state", tuple(State))
            and view.name == wanted.get("name", view.name)
            and view.user == wanted.get("user", view.user)
        ]
        return iter(found if limit is None else found[:limit])

    def plan(self, spec: AnySpec, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """What a job would do, as `treadle plan --json` has it; nothing is started."""
        from treadle.jobs.plan import make_plan
        from treadle.jobs.spec import load_spec

        loaded = load_spec(spec, overrides)
        described: dict[str, Any] = make_plan(loaded, loaded.root(self._root)).describe()
        return described

    def cluster(self) -> ClusterView:
        """There is none that is shared: each job opens its own."""
        self._needs_a_service("cluster")

    def health(self) -> Health:
        """There is no service."""
        self._needs_a_service("health")

    def schedules(self) -> list[ScheduleView]:
        """There is no clock that outlives the program."""
        self._needs_a_service("schedules")

    def schedule(
        self,
        name: str,
        cron: str,
        spec: AnySpec,
        *,
        timezone: str | None = None,
        catch_up: Literal["none", "last", "all"] | None = None,
        priority: int = 0,
        timeout: float | None = None,
        retries: int | None = None,
        overrides: Sequence[str] = (),
    ) -> ScheduleView:
        """There is no clock that outlives the program."""
        self._needs_a_service("schedule")

    def unschedule(self, name: str) -> None:
        """There is no clock that outlives the program."""
        self._needs_a_service("unschedule")

    def _needs_a_service(self, what: str) -> NoReturn:
        raise RequestError(f"{what} needs a service, which Client.local is none of. Start one with: treadle up.")
