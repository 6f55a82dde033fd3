"""Health, metrics, the cluster, schedules and the audit log."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from treadle.errors import RequestError, TreadleError
from treadle.jobs.service.http.callers import Admin, Here, Reader, Submitter
from treadle.jobs.service.http.problems import RESPONSES
from treadle.jobs.service.schedules import Schedules
from treadle.jobs.service.service import Service
from treadle.jobs.service.states import State
from treadle.jobs.service.views import ClusterView, Document, Health, Schedule, ScheduleView
from treadle.versions import version_of

router = APIRouter(responses=RESPONSES)

SEEN_SECONDS = 5.0
"""For which what the cluster has is remembered."""


class SchedulesView(Document):
    """All schedules."""

    schedules: tuple[ScheduleView, ...]


class AuditPage(Document):
    """Some entries of the audit log, the newest first."""

    entries: tuple[dict[str, Any], ...]
    next: str | None


@router.get("/health", tags=["service"], responses={503: {"model": Health, "description": "The cluster starts"}})
def health(service: Here, response: Response) -> Health:
    """Whether jobs that are submitted are started. Needs no token."""
    cluster, counts = _cluster(service, {}), service.store.counts()
    if cluster.state != "up":
        response.status_code = 503
    if service.settings.needs_tokens:  # why it is so names folders and addresses, which are not for everybody
        cluster = cluster.model_copy(update={"reason": "GET /v1/cluster tells why"})
    return Health(
        status="ready" if cluster.state == "up" else "starting",
        version=version_of("treadle"),
        cluster=cluster.model_copy(update={"address": None, "dashboard": None}),
        queued=counts[State.QUEUED],
        running=counts[State.RUNNING],
    )


@router.get("/v1/cluster", tags=["service"])
async def cluster(service: Here, _caller: Reader) -> ClusterView:
    """The Dask cluster that jobs run on."""
    return _cluster(service, await run_in_threadpool(_looked, service))


def _cluster(service: Service, found: dict[str, Any]) -> ClusterView:
    state, reason = service.beside.state
    profile = service.beside.seen
    return ClusterView(
        state=state,
        reason=reason,
        address=profile["address"] if profile else None,
        dashboard=found.get("dashboard") or service.beside.dashboard,
        workers=found.get("workers"),
        threads=found.get("threads"),
        memory_bytes=found.get("memory_bytes"),
    )


def _looked(service: Service) -> dict[str, Any]:
    """What a copy of the nursery sees of the cluster, remembered for a while; nothing, when it sees nothing."""
    then, found = service.looked
    if time.monotonic() - then < SEEN_SECONDS or service.beside.seen is None:
        return found
    try:
        with service.dispatcher.nursery.read("look", json.dumps(dict(service.beside.seen))) as output:
            text = output.read()
    except TreadleError:
        return {}
    found = json.loads(text) if text else {}
    service.looked = (time.monotonic(), found)
    return found


@router.get("/metrics", tags=["service"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(service: Here, _caller: Reader) -> Response:
    """Prometheus metrics."""
    registry = CollectorRegistry()
    jobs = GaugeMetricFamily("treadle_jobs", "Jobs in each state.", labels=["state"])
    for state, count in service.store.counts().items():
        jobs.add_metric([state.value], count)
    up = GaugeMetricFamily("treadle_cluster_up", "Whether the cluster answers.", value=service.beside.seen is not None)
    slots = GaugeMetricFamily("treadle_running_limit", "Jobs that run at once.", value=service.settings.max_running)
    oldest = GaugeMetricFamily(
        "treadle_queued_oldest_seconds", "Age of the oldest queued job.", value=service.store.oldest(State.QUEUED)
    )
    registry.register(_Once((jobs, up, slots, oldest)))
    return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")


class _Once:
    def __init__(self, families: tuple[GaugeMetricFamily, ...]) -> None:
        self._families = families

    def collect(self) -> tuple[GaugeMetricFamily, ...]:
        return self._families


@router.get("/v1/schedules", tags=["schedules"])
def schedules(service: Here, _caller: Reader) -> SchedulesView:
    """All schedules, by name."""
    return SchedulesView(schedules=tuple(Schedules(service).all()))


@router.put("/v1/schedules/{name}", tags=["schedules"])
def put_schedule(
    name: Annotated[str, Path(max_length=128)], schedule: Schedule, service: Here, caller: Submitter
) -> ScheduleView:
    """Adds a schedule, or replaces the one of its name."""
    if schedule.name != name:
        raise RequestError(f"name: '{schedule.name}', but the address says '{name}'.")
    made = Schedules(service).put(schedule, caller.name)
    service.access.note(caller.name, "schedule", name, schedule.cron)
    return made


@router.delete("/v1/schedules/{name}", tags=["schedules"], status_code=204)
def remove_schedule(name: Annotated[str, Path(max_length=128)], service: Here, caller: Submitter) -> None:
    """Removes a schedule; jobs that it has submitted stay."""
    Schedules(service).remove(name)
    service.access.note(caller.name, "unschedule", name, "removed")


@router.get("/v1/audit", tags=["service"])
def audit(
    service: Here,
    _caller: Admin,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> AuditPage:
    """Who did what, the newest first."""
    entries, following = service.access.noted(limit, cursor)
    return AuditPage(entries=tuple(entries), next=following)
