"""A small HTTP server that misbehaves as it is told: for faults that a service cannot be made to have."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

type Behaviour = Callable[[BaseHTTPRequestHandler], None]

JOB_ID = "adult-20261129-143746-3fa2c1"


def view(state: str = "queued", **changes: Any) -> dict[str, Any]:
    """A job as the service would show it."""
    return {
        "id": JOB_ID, "name": "adult", "state": state, "reason": f"It is {state}.", "user": "me",
        "submission_id": None, "priority": 0, "timeout": None, "retries": 1, "after": [], "attempt": 1,
        "created": "2026-11-29T14:37:46Z", "started": None, "finished": None, "not_before": None,
        "root": "/no/such/root", "run": None, "schedule": None, **changes,
    }  # fmt: skip


def details(state: str = "queued", **changes: Any) -> dict[str, Any]:
    return {**view(state, **changes), "spec": {}, "transitions": []}


def answer(status: int, body: Any = None, **headers: str) -> Behaviour:
    """A whole answer: JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "application/json" if status < 400 else "application/problem+json"

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return behave


def problem(status: int, detail: str, errors: list[Any] | None = None, **headers: str) -> Behaviour:
    body = {"type": "about:blank", "title": "x", "status": status, "detail": detail, "errors": errors or []}
    return answer(status, body, **headers)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """The connection is reset instead of an answer, which the request may have caused or not."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
    handler.wfile = handler.rfile = open("/dev/null", "r+b")  # type: ignore[assignment]  # noqa: SIM115


def cut(*chunks: bytes) -> Behaviour:
    """A stream that breaks off."""
    return _stream(chunks, whole=False)


def stream(*chunks: bytes) -> Behaviour:
    """A stream that ends as it should."""
    return _stream(chunks, whole=True)


def _stream(chunks: tuple[bytes, ...], whole: bool) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            handler.wfile.flush()
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return behave


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Faulty:
    """Where the server is, what it does next, and what it was asked."""

    url: str
    script: list[Behaviour] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


@contextlib.contextmanager
def faulty_server() -> Iterator[Faulty]:
    """A server that does one behaviour of its script a request; a request too many is answered 500."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if raw else None
            with lock:
                state.asked.append(Asked(self.command, self.path, dict(self.headers.items()), body))
                behaviour = state.script.pop(0) if state.script else problem(500, "nothing is left of the script")
            behaviour(self)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state = Faulty(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
