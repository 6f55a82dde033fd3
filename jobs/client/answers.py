"""What answers of the service mean: documents, or errors with a remedy."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

from treadle.errors import RequestError, shortened
from treadle.jobs.client.errors import Conflict, NotFound, Refused, ServiceError, ServiceUnreachable, SpecRefused
from treadle.jobs.client.target import Target
from treadle.jobs.service.views import Problem

KINDS: Mapping[int, type[ServiceError]] = {401: Refused, 403: Refused, 404: NotFound, 409: Conflict}


def made[M: BaseModel](model: type[M], what: str, **values: Any) -> M:
    """A document to send; RequestError when a value cannot be."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, not {shortened(repr(one['input']))}"
            for one in error.errors()
        )
        raise RequestError(f"{what}: {mistakes}.") from error


def parsed[M: BaseModel](model: type[M], response: httpx.Response, target: Target) -> M:
    """A document that came. Keys that a newer service adds are left out."""
    try:
        return model.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise _stranger(response, target) from error


def parsed_json(response: httpx.Response, target: Target) -> dict[str, Any]:
    """A JSON object that came."""
    try:
        found = response.json()
    except ValueError as error:
        raise _stranger(response, target) from error
    if not isinstance(found, dict):
        raise _stranger(response, target)
    return found


def _stranger(response: httpx.Response, target: Target) -> ServiceError:
    return ServiceError(
        f"What answers at {target.url} is no Treadle service, or one of another version: "
        f"{response.request.method} {response.request.url.path} brought no document that is known here.",
        response.status_code,
    )


def error_of(response: httpx.Response, target: Target) -> ServiceError:
    """The error that an answer with a status of 400 and more means."""
    status = response.status_code
    try:
        problem = Problem.model_validate_json(response.content, extra="ignore")
        said, mistakes = problem.detail or problem.title, problem.errors
    except ValidationError:
        what = f"{response.request.method} {response.request.url.path}"
        said = f"{target.url} answers {status} {response.reason_phrase} to {what}; is it a Treadle service?"
        mistakes = ()
    if status == 401:
        said += (
            " The token that was sent is not known there; ask the operator of the service for one."
            if target.token
            else " Give a token by token=, --token or the variable TREADLE_TOKEN."
        )
    if status == 422:
        lines = [_mistake(one) for one in mistakes]
        return SpecRefused("\n  ".join([said, *(line for line in lines if line not in said)]), mistakes)
    return KINDS.get(status, ServiceError)(said, status)


def _mistake(one: Mapping[str, Any]) -> str:
    return f"{one['path']}: {one.get('message')}" if one.get("path") else str(one.get("message"))


def busy(response: httpx.Response, target: Target, tried: int) -> ServiceUnreachable:
    """The service said each time that it has no time now."""
    said = str(error_of(response, target))
    return ServiceUnreachable(f"{target.url} was asked {tried} times, and is still too busy: {said}")


def unreachable(target: Target, fault: httpx.TransportError, tried: int) -> ServiceUnreachable:
    """Nobody answers: which address, why, and what to do."""
    if is_untrusted(fault):
        return ServiceUnreachable(
            f"The certificate of {target.url} is not trusted ({fault}). "
            "Name the file with the service's CA by ca=, --ca or the variable TREADLE_CA."
        )
    times = "" if tried == 1 else f", tried {tried} times"
    return ServiceUnreachable(
        f"No service answers at {target.url} ({_cause(fault)}{times}). Start one with: treadle up; "
        "or name another by url=, --url or the variable TREADLE_URL."
    )


def is_untrusted(fault: BaseException | None) -> bool:
    """Whether a connection failed because of the service's certificate, which trying again does not change."""
    while fault is not None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return True
        fault = fault.__cause__ or fault.__context__
    return False


def _cause(fault: httpx.TransportError) -> str:
    if isinstance(fault, httpx.TimeoutException):
        return "it does not answer in time"
    return str(fault) or type(fault).__name__
