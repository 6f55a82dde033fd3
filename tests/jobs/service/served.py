"""Real services for tests: `treadle up` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 60.0
END_SECONDS = 60.0


class Served:
    """A service that a test started, may kill, and may start again with the same home."""

    def __init__(self, folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.options = options
        self.environment = {**os.environ, "TREADLE_HOME": str(self.home), **(environment or {})}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=90)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        """Returns when jobs are started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "up.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "treadle", "up", "--port", str(self.port), *self.options],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        until(lambda: self.is_ready() or not wait, START_SECONDS, lambda: self.said)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def said(self) -> str:
        """What the service printed."""
        return (self.folder / "up.log").read_text()

    def kill(self) -> None:
        """SIGKILL; its cluster and drivers live on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Whatever state it is in, nothing is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
            self.process.kill()
            self.process.wait()
        self.tell()
        if self.process is None or self.process.returncode != 0:  # one that was killed has left its cluster
            command = [sys.executable, "-m", "treadle", "down"]
            subprocess.run(command, env=self.environment, check=True, capture_output=True)
        self.http.close()

    def tell(self) -> None:
        """Prints what everybody said, for the reader of a test that failed."""
        for log in (
            self.folder / "up.log",
            *self.home.glob("*.log"),
            *self.home.glob("*/*.log"),
            *self.home.glob("jobs/*/log.txt"),
        ):
            print(f"--- {log.relative_to(self.folder)}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")

    def submit(self, spec: Mapping[str, Any], **options: Any) -> str:
        """The id of a new job."""
        answer = self.http.post("/v1/jobs", json={"spec": spec, **options})
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["id"])

    def job(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{job}").raise_for_status().json()
        return found

    def wait(self, job: str, seconds: float = 60.0) -> dict[str, Any]:
        """The job when it has ended."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            view: dict[str, Any] = self.http.get(f"/v1/jobs/{job}/wait", params={"timeout": min(left, 30)}).json()
            if view["state"] not in ("queued", "running"):
                return view
            assert left > 0, f"{view}\n{self.said}"

    def driver(self, job: str) -> int | None:
        """Process id of the driver that runs a job, once it has locked the job's folder."""
        try:
            return int(json.loads((self.home / "jobs" / job / "driver.json").read_text())["pid"])
        except (FileNotFoundError, ValueError):
            return None


@contextlib.contextmanager
def served(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A service that is ready, with one worker unless `options` say otherwise; nothing is left of it afterwards."""
    one = Served(folder, *(options or ("--workers", "1")), environment=environment)
    try:
        one.start()
        yield one
    finally:
        one.end()


def until(happens: Any, seconds: float, said: Any = lambda: "") -> None:
    """Waits for something to be so."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s. {said()}"
        time.sleep(0.05)


def raw(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What is answered to bytes as they are, until the connection ends."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError):
            while received := connection.recv(2**16):
                answer += received
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def small_spec(name: str = "small", **changes: Any) -> dict[str, Any]:
    """A job of a second on data that scikit-learn ships."""
    return {
        "apiVersion": "treadle/v1",
        "name": name,
        "data": {"path": "sklearn://iris", "target": "target"},
        "split": {"kind": "random"},
        "models": ["decision_tree"],
        "explain": {"rows": "none"},
        **changes,
    }


def long_spec(name: str = "long", **changes: Any) -> dict[str, Any]:
    """A job that trains for about a minute, in one call of scikit-learn's that cannot be interrupted."""
    forest = {"name": "gradient_boosting", "params": {"n_estimators": 20000}}
    return small_spec(name, **{"models": [forest], **changes})
