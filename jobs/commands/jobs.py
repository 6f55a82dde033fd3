"""Commands that ask a job service: submit, look, wait, cancel, retry, fetch."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from treadle.errors import RequestError
from treadle.jobs.commands.options import Debug, Fresh, Json, Quiet, Set, Spec
from treadle.jobs.commands.schedules import schedule
from treadle.jobs.commands.service_options import (
    AttemptSeconds,
    Ca,
    JobId,
    JobIds,
    Priority,
    Retries,
    Token,
    Url,
    WaitSeconds,
    print_json,
    service,
)

if TYPE_CHECKING:
    from treadle.jobs.client import Job


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (submit, status, list_, logs, wait, cancel, retry, result):
        app.command(command.__name__.rstrip("_"))(command)
    app.add_typer(schedule, name="schedule")


def submit(
    spec: Spec,
    priority: Priority = 0,
    submission_id: Annotated[
        str | None,
        typer.Option(help="The same id is the same job, however often it is submitted.", show_default=False),
    ] = None,
    timeout: AttemptSeconds = None,
    retries: Retries = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="JOB", help="A job that has to succeed first; may be given several times."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show its progress until it is done, and what it made.")] = False,
    set_: Set = None,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Submit a job to a service.

    Exit status: 0 it is accepted (with --wait: it succeeded); 1 with --wait, it failed, was cancelled, took too
    long or was lost; 2 the request is wrong, or no service answers.
    """
    with service(url, token, ca, debug, as_json) as client:
        job = client.submit(
            spec,
            submission_id=submission_id,
            priority=priority,
            timeout=timeout,
            retries=retries,
            after=[client.find(one) for one in after or ()],
            overrides=set_ or (),
        )
        if wait:
            _to_its_end(job, as_json, quiet)
        else:
            _show([job], as_json)


def status(
    job: JobId, url: Url = None, token: Token = None, ca: Ca = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Show a job: its state and why, the steps of its life, its stages."""
    with service(url, token, ca, debug, as_json) as client:
        found = client.find(job)
        view = found.view()
        if as_json:
            print_json(view)
        else:
            from treadle.jobs.client.client import stages_of
            from treadle.jobs.commands import service_console

            service_console.show_job(view, stages_of(found.events(follow=False)))


def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="queued, running, succeeded, failed, cancelled, timed_out or lost; may be given several times.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs whose spec has this name.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List jobs, the newest first."""
    with service(url, token, ca, debug, as_json) as client:
        views = [job.seen for job in client.jobs(state=state, name=name, user=user, limit=limit)]
        if as_json:
            print_json(views)
        else:
            from treadle.jobs.commands import service_console

            service_console.show_jobs(views, client.target.url)


def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is done.")] = False,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    debug: Debug = False,
) -> None:
    """Print the log of a job."""
    with service(url, token, ca, debug) as client:
        found = client.find(job)
        if not follow:
            sys.stdout.write(found.logs())
            return
        with _leaving([found]):
            for line in found.logs(follow=True):
                print(line, flush=True)


def wait(
    jobs: JobIds,
    timeout: WaitSeconds = None,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Wait until jobs are done.

    Exit status: 0 all of them succeeded; 1 one failed, was cancelled, took too long or was lost; 2 the request is
    wrong, or no service answers; 124 the time is up, and a job still runs or is queued.
    """
    with service(url, token, ca, debug, as_json) as client:
        deadline = None if timeout is None else time.monotonic() + timeout
        found = [client.find(job) for job in jobs]
        with _leaving(found):
            for job in found:
                _waited(job, deadline)
        _show(found, as_json, several=True)
        _exit_by(found)


def cancel(
    jobs: JobIds, url: Url = None, token: Token = None, ca: Ca = None, as_json: Json = False, debug: Debug = False
) -> None:
    """Stop jobs; those that run take a moment to end, and `treadle wait` waits for that.

    Exit status: 0 all of them are, or are being, cancelled; 2 one cannot be, or no service answers.
    """
    with service(url, token, ca, debug, as_json) as client:
        found = [client.find(job) for job in jobs]
        refusals = []
        for job in found:
            try:
                job.cancel()
            except RequestError as error:  # the others are cancelled all the same
                refusals.append(str(error))
        _show(found, as_json, several=True)
        for refusal in refusals:
            print(f"treadle: {refusal}", file=sys.stderr)
        if refusals:
            raise typer.Exit(2)


def retry(
    job: JobId,
    fresh: Fresh = False,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Queue a job again that failed, was cancelled, took too long or was lost."""
    with service(url, token, ca, debug, as_json) as client:
        found = client.find(job)
        found.retry(fresh)
        _show([found], as_json)


def result(
    job: JobId,
    timeout: WaitSeconds = None,
    url: Url = None,
    token: Token = None,
    ca: Ca = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a job made, when it is done: leaderboard, tables, model; with --json its manifest.

    Exit status: 0 it succeeded; 1 it failed, was cancelled, took too long or was lost; 2 the request is wrong, or no
    service answers; 124 the time is up, and it still runs or is queued.
    """
    with service(url, token, ca, debug, as_json) as client:
        found = client.find(job)
        with _leaving([found]):
            _show_result(found, None if timeout is None else time.monotonic() + timeout, as_json)


@contextlib.contextmanager
def _leaving(jobs: Sequence[Job]) -> Iterator[None]:
    """Ctrl-C ends the waiting, not the jobs."""
    try:
        yield
    except KeyboardInterrupt:
        ids = " ".join(job.id for job in jobs)
        print(
            f"treadle: no longer waiting; what was submitted goes on. Stop it with: treadle cancel {ids}",
            file=sys.stderr,
        )
        raise typer.Exit(130) from None


def _show(jobs: Sequence[Job], as_json: bool, several: bool = False) -> None:
    """A line a job; as JSON the one job, or a list where there may be several."""
    if as_json:
        print_json([job.seen for job in jobs] if several else jobs[0].seen)
        return
    from treadle.jobs.commands import service_console

    for job in jobs:
        service_console.show_line(job.seen)


def _waited(job: Job, deadline: float | None) -> None:
    job.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0), check=False)


def _exit_by(jobs: Sequence[Job]) -> None:
    """Exit status 1 when a job came to another end than success."""
    from treadle.jobs.service.states import State

    if any(job.seen.state is not State.SUCCEEDED for job in jobs):
        raise typer.Exit(1)


def _to_its_end(job: Job, as_json: bool, quiet: bool) -> None:
    """Progress until the job is done, then what it made."""
    from treadle.jobs.commands import console

    if not (as_json or quiet):
        print(job.id, file=sys.stderr)
    with _leaving([job]), console.listener(quiet or as_json) as listener:
        for event in job.events():
            if event.kind == "stage" and listener is not None:
                listener(event.data)
        if as_json:
            _waited(job, None)
            print_json(job.seen)
            _exit_by([job])
            return
    _show_result(job, None, as_json=False)


def _show_result(job: Job, deadline: float | None, as_json: bool) -> None:
    from treadle.jobs.commands import console

    run = job.result(None if deadline is None else max(deadline - time.monotonic(), 0.0))
    if as_json:
        print(json.dumps(run.manifest))
    else:
        console.show_run(run, full=False)
