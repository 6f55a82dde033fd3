"""A server on loopback that speaks S3 (moto's), in a process of its own; it counts, denies and loses requests.

Needs the packages of the extra `s3`, moto with its extra `s3`, flask and flask-cors. See docs/developing.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from treadle.engine.store import _opened

# A put on condition must be one step for the server as well, so it does one thing at a time, and HTTP/1.0 is enough.
SERVER = """
import json, logging, sys, threading, urllib.parse
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

moto, one = DomainDispatcherApplication(create_backend_app), threading.Lock()
seen, ask = [], {"deny": None, "lose": 0, "ignore": False}

def told(start, status, body=b""):
    start(status, [("Content-Length", str(len(body)))])
    return [body]

def application(environ, start):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    name = f"{method} {path}"
    if path.startswith("/-/"):
        text = urllib.parse.unquote(environ["QUERY_STRING"])
        if path == "/-/deny":
            ask["deny"] = text or None
        elif path == "/-/ignore":
            ask["ignore"] = bool(text)
        elif path == "/-/lose":
            ask["lose"] = 1
        answer = list(seen) if path == "/-/seen" else None
        if path == "/-/seen":
            seen.clear()
        return told(start, "200 OK", json.dumps(answer).encode())
    if ask["deny"] is not None and ask["deny"] in name:
        return told(start, "403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
    if ask["ignore"]:
        environ.pop("HTTP_IF_NONE_MATCH", None)
    with one:
        seen.append(name + ("?list" if "list-type" in environ["QUERY_STRING"] else ""))
        body = b"".join(moto(environ, start))
        if method == "PUT" and ask["lose"]:
            ask["lose"] = 0
            return told(start, "500 Internal Server Error")
        return [body]

server = make_server("127.0.0.1", 0, application, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class S3:
    """A bucket `lake` there, and an s3fs file system that keeps no listings."""

    port: int
    fs: Any

    def control(self, what: str, text: str = "") -> Any:
        """`seen` since it was last asked; `deny` what contains a text; `ignore` conditions; `lose` the next answer."""
        url = f"http://127.0.0.1:{self.port}/-/{what}?{urllib.parse.quote(text)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())

    def seen(self) -> list[str]:
        """Requests since the last time, as `GET /lake/key`, with `?list` for listings."""
        return [str(name) for name in self.control("seen")]


def served(code: str, *arguments: str) -> Iterator[int]:
    """The port of a server in a process of its own, which is ended afterwards."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def s3_server() -> Iterator[S3]:
    """The server, with credentials and endpoint in the variables that every library for S3 knows, and only these."""
    s3fs = pytest.importorskip("s3fs", reason="S3 is read by s3fs")
    pytest.importorskip("moto", reason="moto serves S3")
    with pytest.MonkeyPatch.context() as patch:
        for port in served(SERVER):
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "id")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            for name in ("AWS_ALLOW_HTTP", "AWS_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
                patch.delenv(name, raising=False)
            s3fs.S3FileSystem.clear_instance_cache()
            _opened.cache_clear()  # of another server that this process had under the same name
            fs = s3fs.S3FileSystem(use_listings_cache=False)
            fs.mkdir("lake")
            yield S3(port, fs)
    s3fs.S3FileSystem.clear_instance_cache()
