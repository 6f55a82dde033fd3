"""`treadle run` in a process of its own, watched through its events and struck by signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from treadle.jobs.run import Run, load_run

LIMIT = 90.0
"""Seconds that anything may take here; past them it counts as hung."""


def until[T](what: str, found: Callable[[], T | None], limit: float = LIMIT) -> T:
    """Polls until something is found; a test that waits in vain fails and says for what."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if (value := found()) is not None:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {limit:.0f} s in vain for {what}")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


class Driver:
    """One run of the command line, in its own process group, with its temporary files in `<folder>/tmp`.

    Leaving the block kills what is left of it, so that a test that fails leaves nothing running.
    """

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        self.root = folder / "artifacts"
        self._scratch = folder / "tmp"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._before = {path.name for path in self.root.glob("runs/*")}
        self._seen: dict[int, psutil.Process] = {}
        path = folder / "spec.json"
        path.write_text(json.dumps(spec))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "treadle", "run", str(path), "--root", str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self._scratch)},
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.processes()
        self._process.kill()
        self._process.communicate()
        for process in self._seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def folder(self) -> Path | None:
        """The run's folder, once there is one."""
        return next((path for path in self.root.glob("runs/*") if path.name not in self._before), None)

    def log(self, name: str) -> str:
        """What is in a file of the run so far."""
        file = self.folder / name if self.folder else None
        return file.read_text() if file is not None and file.exists() else ""

    def events(self) -> list[dict[str, Any]]:
        """What the run has said so far."""
        lines = self.log("events.jsonl").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def told(self, words: str) -> list[dict[str, Any]]:
        """What the run has said with such words in its note."""
        return [event for event in self.events() if words in str(event.get("note"))]

    def wait_until(self, what: str, found: Callable[[], bool]) -> None:
        """Waits for something to come about; a run that ends before fails the test."""

        def look() -> bool | None:
            ended = self._process.poll() is not None
            if found():
                return True
            assert not ended, f"the run ended before {what}: {self._process.communicate()}"
            return None

        until(what, look)

    def wait_for(self, stage: str, event: str) -> None:
        """Waits for an event."""
        self.wait_until(
            f"{stage} {event}", lambda: any((e["stage"], e["event"]) == (stage, event) for e in self.events())
        )

    def processes(self) -> list[psutil.Process]:
        """The driver's children that are alive; all that were ever seen are remembered."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                self._seen[child.pid] = child
        return [process for process in self._seen.values() if alive(process)]

    def workers(self) -> list[psutil.Process]:
        """Dask's worker processes, the first started first, without the helpers of multiprocessing."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append((process.create_time(), process.pid, process))
        return [process for _, _, process in sorted(found)]

    def strike(self, number: signal.Signals, group: bool = False) -> None:
        """Sends a signal to the driver, or to all its processes as Ctrl-C in a terminal does."""
        self.processes()
        (os.killpg if group else os.kill)(self._process.pid, number)

    def finish(self) -> Outcome:
        """Waits for the end."""
        self.processes()
        try:
            out, err = self._process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the run hung for {LIMIT:.0f} s; its events: {self.events()[-3:]}") from error
        return Outcome(self._process.returncode, out, err)

    def wait_until_gone(self, limit: float = 10.0) -> None:
        """Waits until no process of the run is left."""
        until("the end of all processes", lambda: None if self.processes() else True, limit)

    def run(self) -> Run:
        """The run as its manifest tells it."""
        assert self.folder is not None
        return load_run(str(self.root), self.folder.name)

    def statuses(self) -> dict[str, str]:
        """Stage -> cached or finished."""
        return {record["stage"]: record["status"] for record in self.run().manifest["stages"]}

    def leftovers(self) -> list[str]:
        """Temporary folders that are still there."""
        return sorted(path.name for path in self._scratch.glob("treadle-*"))


def alive(process: psutil.Process) -> bool:
    """Whether a process still does something; one whose parent was killed may stay a zombie for a while."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
