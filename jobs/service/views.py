"""What the service and its clients say to each other: the documents of the HTTP API, version 1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from treadle.jobs.service.states import State

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@+-]*$")]
"""Ids that clients choose: they stand in addresses and file names."""
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]


class Document(BaseModel):
    """What all documents have in common: keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Submission(Document):
    """A job that somebody wants to be done."""

    spec: dict[str, Any]
    """A job spec, as `treadle schema` describes it."""
    submission_id: Name | None = None
    """The same id is the same job, however often it is submitted; with another spec it is refused."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher ones are started first; among equals the older one."""
    timeout: Seconds | None = None
    """Seconds an attempt may take; the service's own limit when absent."""
    retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """Attempts after the first when the machine is at fault; the service's own number when absent."""
    after: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    """Ids of jobs that have to succeed first."""


class Transition(Document):
    """One step of a job's life."""

    time: datetime
    before: State | None
    after: State
    reason: str


class JobView(Document):
    """A job as the service knows it."""

    id: str
    name: str
    """The spec's, which names its tables and its model."""
    state: State
    reason: str
    """Why it is in this state, in a sentence."""
    user: str
    submission_id: str | None
    priority: int
    timeout: float | None
    retries: int
    after: tuple[str, ...]
    attempt: int
    """Attempts that were begun."""
    created: datetime
    started: datetime | None
    """When the newest attempt began."""
    finished: datetime | None
    not_before: datetime | None
    """When the next attempt is due."""
    root: str
    """Its artifacts root."""
    run: str | None
    """Its run, when it succeeded."""
    schedule: str | None
    """The schedule that submitted it."""


class JobDetails(JobView):
    """A job with its spec and the steps of its life."""

    spec: dict[str, Any]
    transitions: tuple[Transition, ...]


class JobPage(Document):
    """Some of the jobs, the newest first."""

    jobs: tuple[JobView, ...]
    next: str | None
    """Give it as `cursor` for the jobs that come after these; null when there are none."""


class Retry(Document):
    """How to try a job again."""

    fresh: bool = False
    """Do stages again that are done already."""


class Artifact(Document):
    """A file or a table of a run."""

    kind: Literal["file", "table", "model"]
    name: str
    """Of a file its path under the run's folder; of a table its name; of a model `name:version`."""
    bytes: int | None = None
    rows: int | None = None
    version: int | None = None
    path: str
    """Where it lies."""


class Schedule(Document):
    """Jobs that are submitted by the clock."""

    name: Name
    cron: Annotated[str, Field(min_length=9, max_length=200)]
    """Minute, hour, day of the month, month, day of the week; e.g. `0 6 * * mon-fri`."""
    timezone: Annotated[str, Field(max_length=64)] = "UTC"
    catch_up: Literal["none", "last", "all"] = "last"
    """What is done about times at which the service did not run: nothing, once, or each of them (100 at most)."""
    spec: dict[str, Any]
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    timeout: Seconds | None = None
    retries: Annotated[int, Field(ge=0, le=100)] | None = None


class ScheduleView(Schedule):
    """A schedule as the service knows it."""

    user: str
    created: datetime
    last: datetime | None
    """The time of the newest job that it submitted, as the clock said it."""
    next: datetime


class ClusterView(Document):
    """The Dask cluster that jobs run on."""

    state: Literal["up", "starting", "down"]
    reason: str
    address: str | None
    dashboard: str | None
    workers: int | None
    threads: int | None
    memory_bytes: int | None


class Health(Document):
    """Whether the service is ready."""

    status: Literal["ready", "starting"]
    version: str
    cluster: ClusterView
    queued: int
    running: int


class Problem(Document):
    """What is wrong with a request, as RFC 9457 has it; served as application/problem+json."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: tuple[dict[str, Any], ...] = ()
    """Each mistake of a spec: path, message and value."""
