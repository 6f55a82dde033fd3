"""What a job made: its manifest, files, and tables."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from io import BufferedReader, FileIO
from typing import IO, Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic import Field

from treadle.engine.store import Store
from treadle.errors import RequestError, TreadleError, did_you_mean, listed
from treadle.jobs.service.http.callers import Here, Reader
from treadle.jobs.service.http.jobs import JobId
from treadle.jobs.service.http.problems import RESPONSES, Refused
from treadle.jobs.service.service import Service
from treadle.jobs.service.views import Artifact, Document

router = APIRouter(prefix="/v1", tags=["results"], responses=RESPONSES)

ARROW = "application/vnd.apache.arrow.stream"
CHUNK = 2**18
END = b"\xff\xff\xff\xff\0\0\0\0"
"""How an Arrow stream that is whole ends."""
Column = Annotated[str, Field(max_length=1000)]


class Artifacts(Document):
    """Everything that a run left."""

    artifacts: tuple[Artifact, ...]


class NoManifest(Refused):
    """The job's run has none yet."""


@router.get("/jobs/{job}/manifest")
def manifest(job: JobId, service: Here, _caller: Reader) -> dict[str, Any]:
    """The manifest of the job's run: spec, plan, versions, timings, results."""
    return _manifest(service, job)[1]


def _manifest(service: Service, job: str) -> tuple[Store, dict[str, Any]]:
    view = service.store.view(job)
    store = Store(view.root)
    path = f"runs/{job}/manifest.json"
    if not store.exists(path):
        raise NoManifest(
            404, f"Job {job} is {view.state}, and has no manifest; its first attempt that ends writes one."
        )
    return store, store.read_json(path)


@router.get("/jobs/{job}/artifacts")
def artifacts(job: JobId, service: Here, _caller: Reader) -> Artifacts:
    """Files, tables and the model of the job's run; none before its first attempt has ended."""
    try:
        store, found = _manifest(service, job)
    except NoManifest:
        return Artifacts(artifacts=())
    folder = store.path(f"runs/{job}")
    files = store.fs.find(folder, detail=True)
    made = [
        Artifact(kind="file", name=path.removeprefix(f"{folder}/"), bytes=about["size"], path=path)
        for path, about in sorted(files.items())
    ]
    for table in found["tables"]:
        path = store.path(table["path"])
        made.append(Artifact(kind="table", name=table["name"], rows=table["rows"], version=table["version"], path=path))
    if found["model"]:
        path = store.path(f"models/{found['model'].replace(':', '/')}")
        made.append(Artifact(kind="model", name=found["model"], path=path))
    return Artifacts(artifacts=tuple(made))


@router.get(
    "/jobs/{job}/artifacts/{name:path}",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def artifact(job: JobId, name: Annotated[str, Path(max_length=1000)], service: Here, _caller: Reader) -> Response:
    """A file of the job's run, by its name."""
    found = {one.name: one for one in artifacts(job, service, _caller).artifacts if one.kind == "file"}
    if name not in found:
        raise Refused(404, f"Job {job} has no file '{name[:80]}'. Files: [{listed(found)}].{did_you_mean(name, found)}")
    store = Store(service.store.view(job).root)
    headers = {"Content-Disposition": "attachment"}
    if "file" in store.fs.protocol:
        run = os.path.realpath(store.path(f"runs/{job}"))
        if os.path.commonpath([run, os.path.realpath(found[name].path)]) != run:
            raise Refused(404, f"Job {job} has no file '{name[:80]}', only a link that leads out of its run.")
        return FileResponse(found[name].path, media_type="application/octet-stream", headers=headers)
    return StreamingResponse(
        _chunks(store.fs.open(found[name].path, "rb")), media_type="application/octet-stream", headers=headers
    )


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while text := file.read(CHUNK):
            yield text


@router.get("/jobs/{job}/tables/{name}", response_class=Response, responses={200: {"content": {ARROW: {}}}})
async def table(
    job: JobId,
    name: Annotated[str, Path(max_length=200)],
    service: Here,
    _caller: Reader,
    columns: Annotated[list[Column] | None, Query(max_length=500)] = None,
    limit: Annotated[int | None, Query(ge=0, le=2**53)] = None,
) -> StreamingResponse:
    """Rows of a table, at the version that the job's run made, as an Arrow stream."""
    store, found = await run_in_threadpool(_manifest, service, job)
    tables = {one["name"]: one for one in found["tables"]}
    if name not in tables:
        raise Refused(
            404, f"Run {job} has no table '{name[:80]}'. Tables: [{listed(tables)}].{did_you_mean(name, tables)}"
        )
    which = (store.url, store.path(tables[name]["path"]), tables[name]["version"])
    output = await run_in_threadpool(service.dispatcher.nursery.read, "rows", *which, json.dumps(columns), limit)
    try:
        first = await run_in_threadpool(output.readline)
        said = json.loads(first or b'{"error": "The table was not read; the service\'s log may say why."}')
        if "error" in said:
            raise (RequestError if said.get("fault") == "spec" else TreadleError)(said["error"])
    except BaseException:
        output.close()
        raise
    return StreamingResponse(_sent(output), media_type=ARROW)


async def _sent(output: BufferedReader[FileIO]) -> AsyncIterator[bytes]:
    last = b""
    with output:
        while text := await run_in_threadpool(output.read1, CHUNK):
            last = (last + text)[-len(END) :]
            yield text
    if last != END:
        # The answer is cut off, so that nobody takes it for the whole table.
        raise TreadleError("The reader of a table died; the log of the nursery may say why.")
