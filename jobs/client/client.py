"""`Client` and `Job`: the service from Python programs and notebooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from treadle.errors import TreadleError
from treadle.jobs.client.api import Api
from treadle.jobs.client.connection import Connection
from treadle.jobs.client.errors import JobFailed
from treadle.jobs.client.policy import Policy
from treadle.jobs.client.requests import AnySpec, document_of, schedule_of, submission_of, wanted_of
from treadle.jobs.client.streams import Event
from treadle.jobs.client.target import target_of
from treadle.jobs.html import job_html
from treadle.jobs.service.states import State
from treadle.jobs.service.views import ClusterView, Health, JobDetails, JobView, ScheduleView

if TYPE_CHECKING:
    from treadle.jobs.client.local import LocalClient
    from treadle.jobs.run import Run


class Client:
    """A job service.

    Parameters
    ----------
    url
        Else the variable TREADLE_URL, else `http://127.0.0.1:8844`, where `treadle up` serves.
    token
        Else TREADLE_TOKEN; on the service's own machine none may be needed.
    timeout
        Seconds without a byte after which an answer is given up; waiting for jobs is not limited by it.
    ca
        File of the CA by which the service's certificate is known, else TREADLE_CA, else those of the system.
    retries
        How often a request is tried again when the connection fails or the service is too busy; all
        of them may be, because a job that is submitted twice with one id is one job.

    Raises
    ------
    RequestError
        What is given is no address, no token or no file of certificates. Nothing is asked yet.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        timeout: float = 30.0,
        *,
        ca: str | None = None,
        retries: int = 5,
    ) -> None:
        self.target = target_of(url, token, ca, timeout)
        self._api = Api(self.target, Policy(retries))
        self._connection = Connection(self.target)

    @staticmethod
    def local(root: str | None = None) -> LocalClient:
        """The same without a service: each job is a process of this machine, and ends with its client at the latest.

        `root` is the artifacts root instead of those of the specs.
        """
        from treadle.jobs.client.local import LocalClient

        return LocalClient(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self.target.url}>"

    def close(self) -> None:
        """Closes the connections. Jobs go on."""
        self._connection.close()

    def submit(
        self,
        spec: AnySpec,
        *,
        submission_id: str | None = None,
        priority: int = 0,
        timeout: float | None = None,
        retries: int | None = None,
        after: Sequence[str | Job] = (),
        overrides: Sequence[str] = (),
    ) -> Job:
        """Submits a job, which is on the service's disk when this returns.

        Parameters
        ----------
        spec
            A YAML or JSON file, a dict, or a `JobSpec`. It is checked here first; paths become absolute.
        submission_id
            The same id is the same job, however often it is submitted; with another spec it is a `Conflict`.
        priority
            Jobs with a higher one are started first.
        timeout, retries
            Seconds an attempt may take, and attempts after the first when a machine is at fault; else
            the service's own.
        after
            Jobs, or their ids, that have to succeed first.
        overrides
            `path.to.leaf=value`, as with --set.

        Raises
        ------
        RequestError
            The spec has mistakes; `SpecRefused` when only the service finds them.
        """
        document = document_of(spec, self.target, overrides)
        submission = submission_of(document, submission_id, priority, timeout, retries, after)
        return self._job(self._connection.run(self._api.submit(submission)))

    def job(self, job_id: str) -> Job:
        """A job by its id; `NotFound` when there is none."""
        return self._job(self._connection.run(self._api.job(job_id)))

    def find(self, start: str) -> Job:
        """A job by its id, or by the start of it that no other has."""
        return self._job(self._connection.run(self._api.find(start)))

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        name: str | None = None,
        user: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Jobs, the newest first, asked for in pages as they are needed; `name` is that of their specs."""
        wanted = wanted_of(state, name, user)
        return map(self._job, self._connection.each(self._api.jobs(wanted, limit)))

    def plan(self, spec: AnySpec, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """What a job would do, as `treadle plan --json` has it; nothing is started."""
        return self._connection.run(self._api.plan(document_of(spec, self.target, overrides)))

    def cluster(self) -> ClusterView:
        """The Dask cluster that jobs run on."""
        return self._connection.run(self._api.cluster())

    def health(self) -> Health:
        """Whether the service is ready."""
        return self._connection.run(self._api.health())

    def schedules(self) -> list[ScheduleView]:
        """Jobs that are submitted by the clock."""
        return self._connection.run(self._api.schedules())

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
        """Submits a job by the clock from now on, instead of the schedule with this name when there is one.

        `cron` is minute, hour, day of the month, month, day of the week, in `timezone` (UTC when absent);
        `catch_up` is what is done about times at which the service did not run: `none`, the `last` (when
        absent) or `all` of them.
        """
        document = document_of(spec, self.target, overrides)
        schedule = schedule_of(
            name,
            cron,
            document,
            timezone=timezone,
            catch_up=catch_up,
            priority=priority,
            timeout=timeout,
            retries=retries,
        )
        return self._connection.run(self._api.schedule(schedule))

    def unschedule(self, name: str) -> None:
        """Removes a schedule; its jobs stay. `NotFound` when there is none."""
        self._connection.run(self._api.unschedule(name))

    def _job(self, view: JobView) -> Job:
        return Job(self._connection, self._api, view)


class Job:
    """A job of a service. It holds no state but its id: every question is asked anew."""

    def __init__(self, connection: Connection, api: Api, view: JobView) -> None:
        self._connection, self._api = connection, api
        self.id = view.id
        self.seen = view
        """What was known of the job when it was last asked for."""

    def __repr__(self) -> str:
        return f"<Job {self.id}, {self.seen.state.value} when last seen>"

    def view(self) -> JobDetails:
        """All that the service knows of it, its spec and the steps of its life included."""
        self.seen = found = self._connection.run(self._api.job(self.id))
        return found

    def status(self) -> State:
        """Where it is in its life."""
        return self.view().state

    def wait(self, timeout: float | None = None, *, check: bool = True) -> JobView:
        """Waits until the job is done, and returns what became of it; restarts of the service are waited for too.

        Raises
        ------
        JobFailed
            It came to another end than success, unless `check` is False.
        StillRunning
            A TimeoutError: it is not done after `timeout` seconds, and goes on.
        """
        self.seen = view = self._connection.run(self._api.wait(self.id, timeout))
        if check and view.state is not State.SUCCEEDED:
            raise JobFailed(view)
        return view

    @overload
    def logs(self, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(self, follow: Literal[True]) -> Iterator[str]: ...
    def logs(self, follow: bool = False) -> str | Iterator[str]:
        """The log so far; with `follow` its lines, as they are written, until the job is done."""
        if follow:
            return self._connection.each(self._api.follow_log(self.id))
        return self._connection.run(self._api.log(self.id)).decode("utf-8", "replace")

    def events(self, follow: bool = True) -> Iterator[Event]:
        """What happens to the job and its stages, from its beginning until it is done, or until now."""
        return self._connection.each(self._api.events(self.id, follow))

    def cancel(self) -> JobView:
        """Stops the job, which may take a moment: `wait(check=False)`. `Conflict` when it has ended otherwise."""
        self.seen = view = self._connection.run(self._api.cancel(self.id))
        return view

    def retry(self, fresh: bool = False) -> JobView:
        """Queues a job again that did not succeed; with `fresh` it also does again what is done already."""
        self.seen = view = self._connection.run(self._api.retry(self.id, fresh))
        return view

    def result(self, timeout: float | None = None) -> Run:
        """Waits for the job and returns its run, as `treadle.run` does.

        Where its artifacts root cannot be read from here, tables come over HTTP, and there is no `model`.

        Raises
        ------
        JobFailed, StillRunning
            As of `wait`.
        """
        from treadle.jobs.client.remote_run import run_of

        view = self.wait(timeout)
        return run_of(view, self._manifest(), self._table)

    def _manifest(self) -> dict[str, Any]:
        return self._connection.run(self._api.manifest(self.id))

    def _table(self, name: str, columns: list[str] | None) -> bytes:
        return self._connection.run(self._api.table(self.id, name, columns))

    def _repr_html_(self) -> str:
        """The job in a notebook: state, stages, and the leaderboard when it is done."""
        stages: dict[str, str] = {}
        manifest = None
        view: JobView = self.seen
        with contextlib.suppress(TreadleError):  # what cannot be had now is left out: a cell shows no traceback
            view = self.view()
            stages.update(stages_of(self.events(follow=False)))
            if view.state is State.SUCCEEDED:
                manifest = self._manifest()
        return job_html(view, list(stages.items()), manifest)


def stages_of(events: Iterator[Event]) -> dict[str, str]:
    """What last happened to each stage."""
    return {event.data["stage"]: event.data["event"] for event in events if event.kind == "stage"}
