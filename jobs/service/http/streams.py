"""Logs and events of jobs as they come."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from treadle.errors import RequestError
from treadle.jobs.service.http.callers import Here, Reader
from treadle.jobs.service.http.jobs import JobId
from treadle.jobs.service.http.problems import RESPONSES
from treadle.jobs.service.service import Service
from treadle.jobs.service.views import Transition

router = APIRouter(prefix="/v1", tags=["streams"], responses=RESPONSES)

LOOK_SECONDS = 0.25
"""Between looks at a file that grows."""
KEEP_ALIVE_LOOKS = 60
"""Looks without news after which a comment is sent, so that nobody in between gives up the connection."""
CHUNK = 2**18
OFFSET = "X-Log-Offset"
SIZE = "X-Log-Size"


@router.get("/jobs/{job}/logs", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def logs(
    job: JobId,
    service: Here,
    _caller: Reader,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    follow: bool = False,
) -> Response:
    """What the job's drivers printed, from a byte on."""
    await run_in_threadpool(service.store.view, job)
    path = service.dispatcher.folder(job).log
    if follow:
        return StreamingResponse(_followed(service, job, path, offset), media_type="text/plain; charset=utf-8")
    text = await run_in_threadpool(_part, path, offset, service.settings.max_body)
    size = path.stat().st_size if path.exists() else 0
    headers = {OFFSET: str(offset + len(text)), SIZE: str(size)}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)


async def _followed(service: Service, job: str, path: Path, offset: int) -> AsyncIterator[bytes]:
    while True:
        seen = service.bell.count
        # First the state, then the file: what the last driver wrote is there when the job has ended.
        view = await run_in_threadpool(service.store.view, job)
        while text := await run_in_threadpool(_part, path, offset, CHUNK):
            offset += len(text)
            yield text
        if view.state.is_terminal or service.closing.is_set():
            return
        await service.bell.heard(seen, LOOK_SECONDS)


@router.get("/jobs/{job}/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def events(
    job: JobId,
    service: Here,
    _caller: Reader,
    follow: bool = True,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> StreamingResponse:
    """Server-sent events: `stage` for what its stages do, `state` for every step of its life, `end` last."""
    await run_in_threadpool(service.store.view, job)
    start = _position(last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_told(service, job, *start, follow), media_type="text/event-stream", headers=headers)


def _position(last: str | None) -> tuple[int, int]:
    """Bytes of the file of events, and steps of its life, that a client has seen."""
    if not last:
        return 0, 0
    offset, dash, steps = last.partition("-")
    if not (dash and _is_position(offset) and _is_position(steps)):
        raise RequestError("Last-Event-ID: it is not one that an event of this service has.")
    return int(offset), int(steps)


def _is_position(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


async def _told(service: Service, job: str, offset: int, steps: int, follow: bool) -> AsyncIterator[bytes]:
    path = service.dispatcher.folder(job).events
    silent = 0
    while True:
        seen, news = service.bell.count, False
        details = await run_in_threadpool(service.store.details, job)
        while text := await run_in_threadpool(_part, path, offset, CHUNK):
            whole = text[: text.rfind(b"\n") + 1]
            if not whole:
                break
            for line in whole.splitlines():
                for step in _before(line, details.transitions[steps:]):
                    steps += 1
                    yield _event("state", step.model_dump_json(), f"{offset}-{steps}")
                offset += len(line) + 1
                news = True
                yield _event("stage", line.decode(errors="replace"), f"{offset}-{steps}")
        for step in details.transitions[steps:]:
            steps += 1
            news = True
            yield _event("state", step.model_dump_json(), f"{offset}-{steps}")
        if details.state.is_terminal or not follow or service.closing.is_set():
            if details.state.is_terminal:
                view = details.model_dump(mode="json", exclude={"spec", "transitions"})
                yield _event("end", json.dumps(view), f"{offset}-{steps}")
            return
        silent = 0 if news else silent + 1
        if silent >= KEEP_ALIVE_LOOKS:
            silent = 0
            yield b": still here\n\n"
        await service.bell.heard(seen, LOOK_SECONDS)


def _before(line: bytes, steps: Sequence[Transition]) -> Iterator[Transition]:
    """The steps of a job's life that come before a line of its events."""
    try:
        moment = datetime.fromisoformat(json.loads(line)["time"])
    except (ValueError, KeyError, TypeError):
        return  # a line that a full disk cut
    yield from itertools.takewhile(lambda step: step.time <= moment, steps)


def _event(kind: str, data: str, position: str) -> bytes:
    return f"id: {position}\nevent: {kind}\ndata: {data}\n\n".encode()


def _part(path: Path, offset: int, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            if offset >= os.fstat(file.fileno()).st_size:
                return b""  # some systems refuse to go far beyond the end
            file.seek(offset)
            return file.read(most)
    except FileNotFoundError:
        return b""
