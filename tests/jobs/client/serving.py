"""A real service: `treadle up` in a process of its own, on the session's cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from treadle import Client
from treadle.jobs.client import ServiceUnreachable

STARTS_WITHIN = 60.0


@dataclass
class Serving:
    """A service that can be stopped and started again where it was."""

    folder: Path
    scheduler: str
    port: int
    options: tuple[str, ...] = ()
    scheme: str = "http"
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TREADLE_HOME": str(self.folder / "home")}

    def start(self) -> None:
        roots = ["--root", str(self.folder / "artifacts"), "--allow-root", str(self.folder)]
        where = ["--port", str(self.port), "--scheduler", self.scheduler]
        command = [sys.executable, "-m", "treadle", "up", *where, *roots, *self.options]
        with (self.folder / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )

    def ready(self, **options: str) -> None:
        """Returns when it answers that it is."""
        deadline = time.monotonic() + STARTS_WITHIN
        with Client(self.url, retries=0, **options) as client:  # type: ignore[arg-type]
            while True:
                with contextlib.suppress(ServiceUnreachable):
                    if client.health().status == "ready":
                        return
                assert self.process is not None
                said = (self.folder / "service.log").read_text()
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.1)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, scheduler: str, *options: str, scheme: str = "http", **known: str) -> Iterator[Serving]:
    """A service that is ready; stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Serving(folder, scheduler, port, options, scheme)
    service.start()
    try:
        service.ready(**known)
        yield service
    finally:
        service.stop()
