"""Serves: binds the port, runs the app, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from treadle.engine.models.import_path import VARIABLE
from treadle.errors import RequestError, TreadleError
from treadle.jobs.service.http.app import app_of
from treadle.jobs.service.schedules import Schedules
from treadle.jobs.service.service import Service, opened, running
from treadle.jobs.service.settings import Settings

HEAD_SECONDS = 15.0
"""That a request's head may take to come."""
HEAD_BYTES = 2**18
"""That a request's head may have, about."""
CONNECTIONS = 512
"""From which on clients that keep the service waiting have to go."""
DOWN_SECONDS = 90.0
CLOSING_SECONDS = 5

log = logging.getLogger("treadle.service")


class Impatient(HttpToolsProtocol):
    """Hangs up on clients that connect and then do not say what they want, or say far too much.

    Of many that keep the service waiting the one that does so the longest has to go when another one comes: whoever
    opens connections without end does not keep others out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = 0
        self._waits_since: float | None = None
        """Since when the client is to say something: a request's head, or the rest of its body."""
        self._has_body_left = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._expect_head()
        if len(self.connections) > CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None and not self._has_body_left:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._has_body_left = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._has_body_left = False
        if self._head_timer is None:  # else it was answered before all of it had come
            self._waits_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._stop_timer()
        self._head_bytes = 0
        self._waits_since = self.loop.time()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _make_room(self) -> None:
        waiting = [
            (one._waits_since, id(one), one)
            for one in self.connections
            if isinstance(one, Impatient) and one._waits_since is not None and not one.transport.is_closing()
        ]
        if waiting:
            min(waiting)[2].transport.abort()

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def serve(settings: Settings, home: Path) -> None:
    """Serves until SIGTERM or SIGINT, and then stops what was started; jobs that ran are queued again.

    Raises
    ------
    RequestError
        The port is taken, another service has the folder, or the settings cannot be kept.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    _check_certificate(settings)
    bound = _bound(settings)
    settings = settings.model_copy(update={"port": bound.getsockname()[1]})
    # For what is started from here: drivers and the cluster. The operator's own variable does not count.
    os.environ[VARIABLE] = ",".join(settings.allow_code)
    with contextlib.closing(bound), opened(settings, home) as service:
        Schedules(service).start()
        server = Server(uvicorn.Config(app_of(service), **_options(settings)))
        server.service = service
        print(f"treadle serves {settings.url}, with {home}; Ctrl-C or `treadle down` ends it", flush=True)
        server.run(sockets=[bound])
        service.closing.set()
        print("stopping the jobs that run; they go on when the service starts again", flush=True)
        service.dispatcher.drain()
        service.beside.stop()


class Server(uvicorn.Server):
    """Has streams end when the service is told to."""

    service: Service

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.service.closing.set()
        # On another thread: this one may hold the bell.
        threading.Thread(target=self.service.bell.ring).start()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """As uvicorn's, but the signal is not raised again at the end: there is more to do."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _options(settings: Settings) -> dict[str, Any]:
    tls = {"ssl_certfile": settings.certificate, "ssl_keyfile": settings.key} if settings.certificate else {}
    return {
        "http": Impatient,
        "ws": "none",
        "loop": "asyncio",
        "log_level": "warning",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "limit_concurrency": 2 * CONNECTIONS,
        "timeout_keep_alive": int(HEAD_SECONDS),
        "timeout_graceful_shutdown": CLOSING_SECONDS,
        **tls,
    }


def _bound(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle on
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((settings.host, settings.port))
        bound.listen()  # at once: two that have only bound the same port would both be let
    except OSError as error:
        bound.close()
        taken = " Is a service running there already? --port names another." if error.errno == errno.EADDRINUSE else ""
        where = settings.url.partition("//")[2]
        raise RequestError(f"{where} cannot be listened on: {error.strerror}.{taken}") from error
    return bound


def _check_certificate(settings: Settings) -> None:
    """Raises RequestError when HTTPS cannot be served with it."""
    if settings.certificate is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: b"")  # none is asked for
    except OSError as error:
        raise RequestError(
            f"certificate, key: {settings.certificate} and {settings.key} cannot be used: {error.strerror or error}. "
            "They are PEM files, and belong together; `treadle certs DIR` makes some."
        ) from error


def down(home: Path) -> bool:
    """Ends the service that has the folder, with its cluster and jobs; whether there was one.

    Raises
    ------
    TreadleError
        It does not end.
    """
    from treadle.cluster.standing import StandingCluster

    found = running(home)
    deadline = time.monotonic() + DOWN_SECONDS
    if found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["pid"], signal.SIGTERM)
        while running(home) is not None:
            if time.monotonic() > deadline:
                raise TreadleError(f"The service (process {found['pid']}) does not end; its output may say why.")
            time.sleep(0.1)
    # Of a service that was killed, it may still be there.
    cluster = StandingCluster(home / "cluster")
    left = cluster.found() is not None or cluster.is_starting()
    cluster.stop()
    return found is not None or left
