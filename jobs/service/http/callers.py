"""Who makes a request, and whether they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from treadle.jobs.service.access import Caller, Scope
from treadle.jobs.service.http.problems import Refused
from treadle.jobs.service.service import Service

LOCAL = Caller("local", Scope.ADMIN)
"""Whoever reaches a service that needs no tokens."""

bearer = HTTPBearer(auto_error=False, description="A token of `treadle tokens add`; loopback needs none by default.")


def service_of(request: Request) -> Service:
    """The service that an app was made for."""
    service: Service = request.app.state.service
    return service


def _may(scope: Scope) -> Callable[..., Caller]:
    # Not a coroutine: it asks the database.
    def caller(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
    ) -> Caller:
        service = service_of(request)
        if credentials is None and not service.settings.needs_tokens:
            request.state.caller = LOCAL
            return LOCAL
        if credentials is None:
            raise Refused(401, "A token is needed: header Authorization: Bearer TOKEN, or --token.")
        found = service.access.caller(credentials.credentials)
        if found is None:
            service.access.note_refusal("", request.url.path, "wrong token")
            raise Refused(401, "The token is not known, or has expired.")
        if found.scope < scope:
            service.access.note_refusal(found.name, request.url.path, f"needs {scope.name.lower()}")
            raise Refused(
                403,
                f"The token '{found.name}' is good for {found.scope.name.lower()}; this needs {scope.name.lower()}.",
            )
        request.state.caller = found
        return found

    return caller


Here = Annotated[Service, Depends(service_of)]
Reader = Annotated[Caller, Depends(_may(Scope.READ))]
Submitter = Annotated[Caller, Depends(_may(Scope.SUBMIT))]
Admin = Annotated[Caller, Depends(_may(Scope.ADMIN))]
