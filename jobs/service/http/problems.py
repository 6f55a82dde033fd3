"""Errors as problem details (RFC 9457): one document for every way in which a request may go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from treadle.errors import DataError, RequestError, StorageError, TreadleError
from treadle.jobs.problems import SpecError
from treadle.jobs.service.access import Caller
from treadle.jobs.service.paths import PathRefused
from treadle.jobs.service.schedules import NoSuchSchedule
from treadle.jobs.service.store import Conflict, NoSuchJob, StateChanged
from treadle.jobs.service.views import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "2"
MOST_ERRORS = 100
LONGEST_ERROR = 1000
LONGEST_DETAIL = 10_000
STATUSES: tuple[tuple[type[TreadleError], int], ...] = (
    (NoSuchJob, 404),
    (NoSuchSchedule, 404),
    (Conflict, 409),
    (StateChanged, 409),
    (PathRefused, 403),
    (RequestError, 422),
    (DataError, 422),
    (StorageError, 503),
    (TreadleError, 503),
)
"""The first that fits."""
_PROBLEM: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    **{status: {"description": HTTPStatus(status).phrase, **_PROBLEM} for status in (401, 403, 404, 422, 503)},
    "default": {"description": "What is wrong with the request", **_PROBLEM},
}
"""Of every route."""


class Refused(HTTPException):
    """A request that is not served, for a reason that is no error of the engine's."""


def response(
    status: int, detail: str, errors: tuple[dict[str, str], ...] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem; of very many errors and of long texts only the beginning."""
    told = tuple({name: _told(text, LONGEST_ERROR) for name, text in one.items()} for one in errors[:MOST_ERRORS])
    problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=_told(detail, LONGEST_DETAIL), errors=told)
    headers = dict(headers or {})
    if status in (429, 503):
        headers["Retry-After"] = RETRY_SECONDS
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(), status, headers, MEDIA_TYPE)


def _note_refusal(request: Request, error: PathRefused) -> None:
    """A path out of the allowed roots is worth an entry in the audit log."""
    caller: Caller | None = getattr(request.state, "caller", None)
    service = request.app.state.service
    service.access.note_refusal(caller.name if caller else "", request.url.path, str(error))


def _told(text: str, most: int) -> str:
    """What JSON can carry of a text: half a surrogate pair, which a request can spell, is not among it."""
    text = text if len(text) <= most else f"{text[:most]}..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def install(app: FastAPI) -> None:
    """Has the app answer with problems."""

    @app.exception_handler(TreadleError)
    async def _treadle(request: Request, error: TreadleError) -> JSONResponse:
        status = next(status for kind, status in STATUSES if isinstance(error, kind))
        if isinstance(error, PathRefused):
            await run_in_threadpool(_note_refusal, request, error)
        errors: tuple[dict[str, str], ...] = ()
        if isinstance(error, SpecError):
            errors = tuple({"path": one.path, "message": one.message} for one in error.problems)
        return response(status, str(error), errors)

    @app.exception_handler(StarletteHTTPException)
    async def _http(_request: Request, error: StarletteHTTPException) -> JSONResponse:
        return response(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(one["type"] == "json_invalid" for one in found):
            return response(400, "The body is no JSON.")
        errors = tuple(
            {"path": ".".join(str(part) for part in one["loc"][1:]), "message": str(one["msg"])} for one in found
        )
        told = "; ".join(f"{one['path'] or 'the body'}: {one['message']}" for one in errors[:5])
        return response(422, told, errors)

    @app.exception_handler(Exception)
    async def _bug(_request: Request, error: Exception) -> JSONResponse:
        # What it says may hold anything; the service's log has it, with the traceback.
        return response(500, f"{type(error).__name__}: a bug in Treadle; the service's log has more.")
