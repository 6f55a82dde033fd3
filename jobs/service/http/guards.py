"""What every request passes before it is looked at: its size, its pace, where it comes from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from treadle.cluster.profiles import is_loopback
from treadle.jobs.service.http.problems import Refused, response
from treadle.jobs.service.pace import Pace
from treadle.jobs.service.settings import Settings

BODY_SECONDS = 20.0
"""That a request's body may take to come."""
JSON = "application/json"
SAFE = ("GET", "HEAD", "OPTIONS")


class Guards:
    """Refuses what is too large, too slow, too much, or sent by another site's page."""

    def __init__(self, app: ASGIApp, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._settings = settings
        self._pace = Pace(settings.requests_a_minute, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = False

        async def watched(message: Message) -> None:
            nonlocal sent
            sent = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await response(*refusal)(scope, receive, watched)
            return
        limited = Limited(receive, self._settings.max_body)

        try:
            await self._app(scope, limited, watched)
        except Refused as error:
            if sent:
                raise
            await response(error.status_code, str(error.detail))(scope, receive, watched)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        client = scope["client"][0] if scope.get("client") else ""
        if not self._pace.allows(client):
            return 429, f"More than {self._settings.requests_a_minute} requests a minute; wait a little."
        # A page of another site can have a browser send requests here, under a name that it chose for 127.0.0.1.
        host = _host(f"//{headers.get('host', '')}")
        if is_loopback(self._settings.host) and not is_loopback(host):
            return 400, "The host of the address is not this machine; use 127.0.0.1 or localhost."
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE and origin.partition("//")[2] != headers.get("host"):
            return 403, f"A page of {origin[:200]} may not ask this service to do anything."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400, "Content-Length is no number."
        if len(length) > 18 or int(length) > self._settings.max_body:
            return 413, f"The body has more than {self._settings.max_body} bytes (max_body)."
        # What a browser sends of its own accord, a form say, is not JSON.
        has_body = length.strip("0") or "transfer-encoding" in headers
        if has_body and headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return 415, f"The body is to be JSON: header Content-Type: {JSON}."
        return None


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


class Limited:
    """Receives at most so many bytes of a body, and within a time."""

    def __init__(self, receive: Callable[[], Awaitable[Message]], most: int) -> None:
        self._receive = receive
        self._left = most
        self._most = most
        self._deadline = time.monotonic() + BODY_SECONDS
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:  # waits for the client to go away, as long as that takes
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(self._deadline - time.monotonic(), 0.001))
        except TimeoutError:
            raise Refused(408, f"The body did not come within {BODY_SECONDS:g} s.") from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._left < 0:
                raise Refused(413, f"The body has more than {self._most} bytes (max_body).")
        return message
