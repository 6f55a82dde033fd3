"""`AsyncClient` and `AsyncJob`: what `Client` and `Job` do, awaited. What things mean is said there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from treadle.jobs.client.api import Api
from treadle.jobs.client.async_connection import AsyncConnection
from treadle.jobs.client.connection import Connection
from treadle.jobs.client.errors import JobFailed
from treadle.jobs.client.policy import Policy
from treadle.jobs.client.requests import AnySpec, document_of, schedule_of, submission_of, wanted_of
from treadle.jobs.client.streams import Event
from treadle.jobs.client.target import target_of
from treadle.jobs.service.states import State
from treadle.jobs.service.views import ClusterView, Health, JobDetails, JobView, ScheduleView

if TYPE_CHECKING:
    from treadle.jobs.run import Run


class AsyncClient:
    """A job service, for programs that use asyncio; parameters and errors are those of `Client`."""

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
        self._connection = AsyncConnection(self.target)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self.target.url}>"

    async def close(self) -> None:
        """Closes the connections. Jobs go on."""
        await self._connection.close()

    async def submit(
        self,
        spec: AnySpec,
        *,
        submission_id: str | None = None,
        priority: int = 0,
        timeout: float | None = None,
        retries: int | None = None,
        after: Sequence[str | AsyncJob] = (),
        overrides: Sequence[str] = (),
    ) -> AsyncJob:
        """Submits a job, which is on the service's disk when this returns."""
        document = await self._document(spec, overrides)
        submission = submission_of(document, submission_id, priority, timeout, retries, after)
        return self._job(await self._connection.run(self._api.submit(submission)))

    async def job(self, job_id: str) -> AsyncJob:
        """A job by its id; `NotFound` when there is none."""
        return self._job(await self._connection.run(self._api.job(job_id)))

    async def find(self, start: str) -> AsyncJob:
        """A job by its id, or by the start of it that no other has."""
        return self._job(await self._connection.run(self._api.find(start)))

    async def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        name: str | None = None,
        user: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[AsyncJob]:
        """Jobs, the newest first, asked for in pages as they are needed."""
        async for view in self._connection.each(self._api.jobs(wanted_of(state, name, user), limit)):
            yield self._job(view)

    async def plan(self, spec: AnySpec, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """What a job would do, as `treadle plan --json` has it; nothing is started."""
        return await self._connection.run(self._api.plan(await self._document(spec, overrides)))

    async def cluster(self) -> ClusterView:
        """The Dask cluster that jobs run on."""
        return await self._connection.run(self._api.cluster())

    async def health(self) -> Health:
        """Whether the service is ready."""
        return await self._connection.run(self._api.health())

    async def schedules(self) -> list[ScheduleView]:
        """Jobs that are submitted by the clock."""
        return await self._connection.run(self._api.schedules())

    async def schedule(
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
        """Submits a job by the clock from now on, instead of the schedule with this name when there is one."""
        schedule = schedule_of(
            name,
            cron,
            await self._document(spec, overrides),
            timezone=timezone,
            catch_up=catch_up,
            priority=priority,
            timeout=timeout,
            retries=retries,
        )
        return await self._connection.run(self._api.schedule(schedule))

    async def unschedule(self, name: str) -> None:
        """Removes a schedule; its jobs stay. `NotFound` when there is none."""
        await self._connection.run(self._api.unschedule(name))

    async def _document(self, spec: AnySpec, overrides: Sequence[str]) -> dict[str, Any]:
        """The spec, read in a thread: libraries are loaded and files looked for."""
        return await asyncio.to_thread(document_of, spec, self.target, overrides)

    def _job(self, view: JobView) -> AsyncJob:
        return AsyncJob(self._connection, self._api, view)


class AsyncJob:
    """A job of a service. It holds no state but its id: every question is asked anew."""

    def __init__(self, connection: AsyncConnection, api: Api, view: JobView) -> None:
        self._connection, self._api = connection, api
        self.id = view.id
        self.seen = view
        """What was known of the job when it was last asked for."""

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id}, {self.seen.state.value} when last seen>"

    async def view(self) -> JobDetails:
        """All that the service knows of it."""
        self.seen = found = await self._connection.run(self._api.job(self.id))
        return found

    async def status(self) -> State:
        """Where it is in its life."""
        return (await self.view()).state

    async def wait(self, timeout: float | None = None, *, check: bool = True) -> JobView:
        """Waits until the job is done, and returns what became of it; raises JobFailed and StillRunning."""
        self.seen = view = await self._connection.run(self._api.wait(self.id, timeout))
        if check and view.state is not State.SUCCEEDED:
            raise JobFailed(view)
        return view

    @overload
    def logs(self, follow: Literal[False] = False) -> Coroutine[Any, Any, str]: ...
    @overload
    def logs(self, follow: Literal[True]) -> AsyncIterator[str]: ...
    def logs(self, follow: bool = False) -> Coroutine[Any, Any, str] | AsyncIterator[str]:
        """`await job.logs()` is the log so far; `async for line in job.logs(follow=True)` goes on until it is done."""
        return self._connection.each(self._api.follow_log(self.id)) if follow else self._log()

    async def _log(self) -> str:
        return (await self._connection.run(self._api.log(self.id))).decode("utf-8", "replace")

    def events(self, follow: bool = True) -> AsyncIterator[Event]:
        """What happens to the job and its stages, from its beginning until it is done, or until now."""
        return self._connection.each(self._api.events(self.id, follow))

    async def cancel(self) -> JobView:
        """Stops the job, which may take a moment: `await job.wait(check=False)`."""
        self.seen = view = await self._connection.run(self._api.cancel(self.id))
        return view

    async def retry(self, fresh: bool = False) -> JobView:
        """Queues a job again that did not succeed; with `fresh` it also does again what is done already."""
        self.seen = view = await self._connection.run(self._api.retry(self.id, fresh))
        return view

    async def result(self, timeout: float | None = None) -> Run:
        """Waits for the job and returns its run. Reading its tables blocks: do it in a thread when they are large."""
        from treadle.jobs.client.remote_run import run_of

        view = await self.wait(timeout)
        manifest = await self._connection.run(self._api.manifest(self.id))
        return await asyncio.to_thread(run_of, view, manifest, self._table)

    def _table(self, name: str, columns: list[str] | None) -> bytes:
        connection = Connection(self._api.target)
        try:
            return connection.run(self._api.table(self.id, name, columns))
        finally:
            connection.close()
