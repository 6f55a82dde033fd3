"""The folder of a job: where its driver and the service meet, so that each may die without the other.

order.json      what to run
attempt         the attempt that may run now; a driver with another number goes away
lock            locked by the driver as long as it lives, by the system's reckoning
driver.json     the process id of the attempt's driver
heartbeat       seconds of the driver's own clock since it began; it writes them every second
events.jsonl    what the stages do: one JSON object a line, of all attempts
log.txt         what the drivers print
publishing      there while the attempt publishes
outcome.json    how the attempt ended; the driver writes it last
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.cluster.locks import is_locked
from treadle.cluster.private import private, private_folder

Fault = Literal["none", "spec", "machine", "unknown"]
"""Who is to blame: nobody, what was asked for, the machine (then another attempt may help), or a bug."""


@dataclass(frozen=True)
class Order:
    """What a driver is to do."""

    job: str
    spec: Mapping[str, Any]
    root: str
    allowed: tuple[str, ...]
    """Folders and URLs that the job may read from and write to."""
    fresh: bool
    cluster: Mapping[str, Any]
    """The profile of a running scheduler."""
    closed: tuple[str, ...] = ()
    """Files and folders in `allowed` that the job may not use all the same."""


def order_of(found: Mapping[str, Any]) -> Order:
    """An order that was written as JSON."""
    return Order(**{**found, "allowed": tuple(found["allowed"]), "closed": tuple(found.get("closed", ()))})


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    attempt: int
    fault: Fault
    reason: str
    cancelled: bool = False

    @property
    def succeeded(self) -> bool:
        return self.fault == "none" and not self.cancelled


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.txt"
        self.events = path / "events.jsonl"
        self.heartbeat = path / "heartbeat"
        self._lock = path / "lock"
        self._held = 0

    def prepare(self, order: Order, attempt: int) -> None:
        """Makes way for an attempt; what is written is on disk."""
        private_folder(self.path)
        for name in ("heartbeat", "driver.json", "outcome.json", "publishing"):
            (self.path / name).unlink(missing_ok=True)
        self._write("order.json", asdict(order))
        self._write("attempt", attempt)

    def order(self) -> Order:
        """What `prepare` wrote."""
        found = json.loads((self.path / "order.json").read_text())
        return order_of(found)

    def attempt(self) -> int:
        """The attempt that may run; 0 when none may."""
        try:
            return int(json.loads((self.path / "attempt").read_text()))
        except (OSError, ValueError):
            return 0

    @contextlib.contextmanager
    def living(self, attempt: int) -> Iterator[bool]:
        """Holds the lock during the block, which is the driver's life; whether the attempt may still run."""
        with open(self._lock, "a", opener=private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._held = os.fstat(lock.fileno()).st_ino
            allowed = self.attempt() == attempt and self.outcome(attempt) is None
            if allowed:
                self._write("driver.json", {"pid": os.getpid(), "attempt": attempt})
            yield allowed

    def holds(self) -> bool:
        """Whether the lock of `living` is still the one that others look at: the folder may have been deleted."""
        try:
            return self._lock.stat().st_ino == self._held
        except FileNotFoundError:
            return False

    def is_alive(self) -> bool:
        """Whether a driver holds the lock."""
        return is_locked(self._lock)

    def close(self, attempt: int) -> Outcome | None:
        """Keeps the attempt from running from now on, and tells its outcome when it has one after all."""
        private_folder(self.path)  # somebody may have deleted it
        with open(self._lock, "a", opener=private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            outcome = self.outcome(attempt)
            self._write("attempt", 0)
        return outcome

    def pid(self, attempt: int) -> int | None:
        """The process of the attempt's driver; only while `is_alive` is it certainly that and no other's."""
        found = self._read("driver.json")
        return int(found["pid"]) if found and found["attempt"] == attempt else None

    def outcome(self, attempt: int) -> Outcome | None:
        """How the attempt ended, when its driver has said so."""
        found = self._read("outcome.json")
        return Outcome(**found) if found and found["attempt"] == attempt else None

    def end(self, outcome: Outcome) -> None:
        """The driver's last word."""
        self._write("outcome.json", asdict(outcome))

    def beat(self, elapsed: float) -> None:
        """A sign of life; a full disk does not stop it, since the file stays as long as it is."""
        with open(self.heartbeat, "r+b" if self.heartbeat.exists() else "wb", buffering=0, opener=private) as file:
            file.write(f"{elapsed:20.3f}".encode())

    def publish(self) -> None:
        """Notes that what follows is not to be cut in two."""
        (self.path / "publishing").touch(mode=0o600)

    def is_publishing(self) -> bool:
        return (self.path / "publishing").exists()

    def elapsed(self) -> float | None:
        """Seconds of the newest sign of life."""
        try:
            return float(self.heartbeat.read_text())
        except (OSError, ValueError):
            return None

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return None

    def _write(self, name: str, value: Any) -> None:
        """A file that is whole whenever it is there, also after a power cut."""
        temporary = self.path / f"{name}.new"
        with open(temporary, "w", encoding="utf-8", opener=private) as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / name)
