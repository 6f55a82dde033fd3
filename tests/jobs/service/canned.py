"""A service whose jobs a test moves by hand: the routes that the live page asks, with the documents of the API."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from treadle.jobs.service import page
from treadle.jobs.service.states import RETRIABLE, State
from treadle.jobs.service.views import Artifact, ClusterView, Health, JobDetails, JobPage, JobView, Problem, Transition


@dataclass
class Held:
    """A job and what it has said."""

    details: JobDetails
    log: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Canned:
    """What the service knows, and what it was asked."""

    token: str | None = None
    jobs: dict[str, Held] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    cut: threading.Event = field(default_factory=threading.Event)
    """Set for streams to break off; new ones are fine again when it is cleared."""

    def add(self, name: str, state: State = State.QUEUED, reason: str = "waits for a free place", **more: Any) -> str:
        job = f"job-{len(self.jobs):06d}"
        time = datetime.now(UTC)
        fields = {
            "id": job, "name": name, "state": state, "reason": reason, "user": "mara", "submission_id": None,
            "priority": 0, "timeout": None, "retries": 1, "after": (), "attempt": int(state != State.QUEUED),
            "created": time, "started": None if state == State.QUEUED else time,
            "finished": time if state.is_terminal else None, "not_before": None, "root": "/artifacts",
            "run": job if state == State.SUCCEEDED else None, "schedule": None, "spec": {"name": name},
            "transitions": (Transition(time=time, before=None, after=State.QUEUED, reason="submitted"),),
        }  # fmt: skip
        self.jobs[job] = Held(JobDetails(**{**fields, **more}))
        return job

    def move(self, job: str, state: State, reason: str, **more: Any) -> None:
        held = self.jobs[job]
        old, time = held.details, datetime.now(UTC)
        step = Transition(time=time, before=old.state, after=state, reason=reason)
        ends = {"finished": time if state.is_terminal else None}
        starts = {"started": time, "attempt": old.attempt + 1} if state == State.RUNNING else {}
        changes = {"state": state, "reason": reason, "transitions": (*old.transitions, step), **ends, **starts, **more}
        held.details = old.model_copy(update=changes)

    def say(self, job: str, stage: str, event: str, **more: Any) -> None:
        time = datetime.now(UTC).isoformat()
        said = {"time": time, "stage": stage, "event": event, "attempt": self.jobs[job].details.attempt, **more}
        self.jobs[job].events.append(said)

    def paths(self, part: str) -> list[str]:
        return [path for _, path, _ in self.asked if part in path]


def view(details: JobDetails) -> JobView:
    return JobView(**details.model_dump(exclude={"spec", "transitions"}))


def problem(status: int, detail: str) -> JSONResponse:
    document = Problem(title="no", status=status, detail=detail).model_dump()
    return JSONResponse(document, status, media_type="application/problem+json")


def app_of(canned: Canned) -> FastAPI:
    app = FastAPI()
    app.include_router(page.router())
    cluster = ClusterView(
        state="up", reason="2 workers", address="tcp://127.0.0.1:1", dashboard="http://127.0.0.1:1/status",
        workers=2, threads=4, memory_bytes=8 << 30,
    )  # fmt: skip

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        canned.asked.append((request.method, str(request.url.path), dict(request.headers)))
        needed = canned.token is not None and request.url.path.startswith("/v1/")
        if needed and request.headers.get("authorization") != f"Bearer {canned.token}":
            return problem(401, "this token is not known")
        answer: Response = await call_next(request)
        return answer

    @app.get("/health")
    def health() -> Health:
        states = [held.details.state for held in canned.jobs.values()]
        counts = {"queued": states.count(State.QUEUED), "running": states.count(State.RUNNING)}
        return Health(status="ready", version="0", cluster=cluster, **counts)

    @app.get("/v1/cluster")
    def the_cluster() -> ClusterView:
        return cluster

    @app.get("/v1/jobs")
    def jobs(request: Request, name: str | None = None, limit: int = 50, cursor: int = 0) -> JobPage:
        states = request.query_params.getlist("state")
        found = [view(held.details) for held in reversed(canned.jobs.values())]
        found = [job for job in found if (not states or job.state in states) and name in (None, job.name)]
        rest = str(cursor + limit) if len(found) > cursor + limit else None
        return JobPage(jobs=tuple(found[cursor : cursor + limit]), next=rest)

    @app.get("/v1/jobs/{job}", response_model=None)
    def details(job: str) -> JobDetails | JSONResponse:
        return canned.jobs[job].details if job in canned.jobs else problem(404, f"there is no job '{job}'")

    @app.post("/v1/jobs/{job}/cancel", response_model=None)
    def cancel(job: str) -> JobView | JSONResponse:
        if canned.jobs[job].details.state.is_terminal:
            return problem(409, "the job has ended")
        canned.move(job, State.CANCELLED, "cancelled by mara")
        return view(canned.jobs[job].details)

    @app.post("/v1/jobs/{job}/retry", response_model=None)
    async def retry(job: str, request: Request) -> JobView | JSONResponse:
        canned.bodies.append(await request.json())
        if canned.jobs[job].details.state not in RETRIABLE:
            return problem(409, "the job cannot be retried")
        canned.move(job, State.QUEUED, "retried by mara")
        return view(canned.jobs[job].details)

    @app.get("/v1/jobs/{job}/logs")
    async def logs(job: str, offset: int = 0, follow: bool = False) -> StreamingResponse:
        held = canned.jobs[job]

        async def content() -> AsyncIterator[bytes]:
            sent = offset
            while True:
                over = held.details.state.is_terminal
                if len(held.log) > sent:
                    part = held.log[sent:]
                    sent += len(part)
                    yield part
                if not follow or over or canned.cut.is_set():
                    return
                await asyncio.sleep(0.1)

        return StreamingResponse(content(), media_type="text/plain")

    @app.get("/v1/jobs/{job}/events")
    async def events(job: str, request: Request) -> StreamingResponse:
        held = canned.jobs[job]
        start = int(request.headers.get("last-event-id", 0))

        async def content() -> AsyncIterator[str]:
            sent, state = start, held.details.state
            while True:
                over = held.details.state.is_terminal
                for said in held.events[sent:]:
                    sent += 1
                    yield f"id: {sent}\nevent: stage\ndata: {json.dumps(said)}\n\n"
                if held.details.state != state:
                    state = held.details.state
                    yield f"event: state\ndata: {held.details.transitions[-1].model_dump_json()}\n\n"
                if over:
                    yield f"event: end\ndata: {view(held.details).model_dump_json()}\n\n"
                if over or canned.cut.is_set():
                    return
                await asyncio.sleep(0.1)

        return StreamingResponse(content(), media_type="text/event-stream")

    @app.get("/v1/jobs/{job}/manifest")
    def manifest(job: str) -> Response:
        return Response(canned.jobs[job].artifacts["manifest.json"], media_type="application/json")

    @app.get("/v1/jobs/{job}/artifacts")
    def artifacts(job: str) -> dict[str, list[Artifact]]:
        files = canned.jobs[job].artifacts.items()
        return {"artifacts": [Artifact(kind="file", name=n, bytes=len(c), path=f"/artifacts/{n}") for n, c in files]}

    @app.get("/v1/jobs/{job}/artifacts/{name:path}")
    def artifact(job: str, name: str) -> Response:
        return Response(canned.jobs[job].artifacts[name], media_type="application/octet-stream")

    return app
