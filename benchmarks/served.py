"""A real service for a benchmark: `treadle up` in a process of its own, with a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psutil

from treadle.errors import TreadleError
from treadle.jobs.service.service import running

START_SECONDS = 120.0
END_SECONDS = 120.0
LOOK_SECONDS = 0.05
SETTINGS = "requests_a_minute: 1000000\n"
"""The benchmark asks faster than one client is allowed to by default."""


class Served:
    """The service of a folder; it can be started, killed, and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ("127.0.0.1", 0)
        self._kept: http.client.HTTPConnection | None = None
        self.home.mkdir(parents=True)
        (self.home / "service.yaml").write_text(SETTINGS, encoding="utf-8")

    def start(self, until: Iterable[int] = (200,)) -> float:
        """Seconds until GET /health answers with one of these statuses; 200 is that jobs are started."""
        self._let_go()
        begun = time.perf_counter()
        with open(self.folder / "up.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "treadle", "up", "--port", "0", "--home", str(self.home), *self._options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while not self._answers(until):
            if self._process.poll() is not None or time.perf_counter() - begun > START_SECONDS:
                raise TreadleError(f"bench service: the service does not start:\n{self._said()}")
            time.sleep(LOOK_SECONDS)
        return time.perf_counter() - begun

    def _answers(self, statuses: Iterable[int]) -> bool:
        found = running(self.home) or {}
        if self._process is None or found.get("pid") != self._process.pid:
            return False
        self._address = ("127.0.0.1", urlsplit(found["url"]).port or 0)
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/health")[0] in statuses
        return False

    def _said(self) -> str:
        return (self.folder / "up.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    @property
    def process(self) -> psutil.Process:
        """The service's own; its nursery and its cluster are others."""
        if self._process is None:
            raise TreadleError("bench service: the service was not started.")
        return psutil.Process(self._process.pid)

    def kill(self) -> None:
        """SIGKILL of the service alone: its cluster and the drivers of its jobs live on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def end(self) -> None:
        """Whatever state it is in, nothing is left of it."""
        self._let_go()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
            self.kill()
        command = [sys.executable, "-m", "treadle", "down", "--home", str(self.home)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, method: str, path: str, body: Any = None, keep: bool = False) -> tuple[int, Any]:
        """Status and document of an answer; on a new connection, unless the last one is to be kept."""
        connection = self._kept if keep and self._kept is not None else http.client.HTTPConnection(*self._address)
        if keep:
            self._kept = connection
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        text = answer.read()
        if not keep:
            connection.close()
        return answer.status, json.loads(text)

    def submit(self, submission: dict[str, Any], keep: bool = False) -> str:
        """The id of a new job.

        Raises
        ------
        TreadleError
            It was refused.
        """
        status, found = self.ask("POST", "/v1/jobs", submission, keep)
        if status != 201:
            raise TreadleError(f"bench service: a submission was answered with {status}: {found}")
        return str(found["id"])

    def jobs(self, **query: str) -> list[dict[str, Any]]:
        """All jobs that the service knows, or those of a query."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            _, page = self.ask("GET", f"/v1/jobs?{urlencode({'limit': '500', **query, **cursor})}")
            found += page["jobs"]
            if page["next"] is None:
                return found
            cursor = {"cursor": page["next"]}

    def wait(self, seconds: float) -> None:
        """Returns when no job is queued or running.

        Raises
        ------
        TreadleError
            Some are after so many seconds.
        """
        deadline = time.perf_counter() + seconds
        while True:
            health = self.ask("GET", "/health")[1]
            if health["queued"] == health["running"] == 0:
                return
            if time.perf_counter() > deadline:
                raise TreadleError(
                    f"bench service: after {seconds:g} s {health['queued']} jobs are queued and {health['running']} run"
                )
            time.sleep(LOOK_SECONDS)

    def cpu_seconds(self) -> float:
        """Of the service, its nursery, its cluster, and all drivers and workers that have ended."""
        spent = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                spent += sum(process.cpu_times()[:4])
        return spent


def memory(*processes: psutil.Process) -> dict[str, int]:
    """Bytes: resident, shared pages by their share, and those of nobody else."""
    every = [process.memory_full_info() for process in processes]
    return {
        "processes": len(every),
        **{kind: sum(getattr(one, kind) for one in every) for kind in ("rss", "pss", "uss")},
    }
