"""A cluster that outlives whoever started it: a process of its own, found again by its folder.

cluster.json    address, dashboard and process id, once it is up
lock            locked as long as it lives
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from treadle.cluster.locks import is_locked, locked
from treadle.cluster.private import private, private_folder
from treadle.cluster.profiles import AnyProfile, Profile
from treadle.errors import TreadleError

STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Standing:
    """A cluster that is up."""

    address: str
    dashboard: str
    pid: int


class StandingCluster:
    """The cluster of a folder, whether it is running or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "cluster.log"
        self._lock = folder / "lock"
        self._state = folder / "cluster.json"

    def found(self) -> Standing | None:
        """The cluster, when it is up."""
        if not is_locked(self._lock):
            return None
        try:
            return Standing(**json.loads(self._state.read_text()))
        except (OSError, ValueError):
            return None  # it is starting

    def is_starting(self) -> bool:
        """Whether its process lives, and the cluster is not up yet."""
        return is_locked(self._lock) and self.found() is None

    def start(self, profile: Profile) -> None:
        """Begins to start it, in a session of its own; `found` tells when it is up. Nothing happens when it lives."""
        private_folder(self.folder)
        with open(self.log, "ab", opener=private) as log:
            subprocess.Popen(
                [sys.executable, "-m", __name__, str(self.folder), profile.model_dump_json()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ends it and its workers, if it lives.

        Raises
        ------
        TreadleError
            It does not end, even when it is killed.
        """
        deadline = time.monotonic() + STOP_SECONDS
        sent = signal.SIGTERM
        while is_locked(self._lock):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(self._lock.read_text()), sent)
            time.sleep(0.1)
            if time.monotonic() > deadline:
                if sent == signal.SIGKILL:
                    raise TreadleError(f"The cluster of {self.folder} does not end; {self.log} may say why.")
                sent, deadline = signal.SIGKILL, deadline + STOP_SECONDS

    def stand(self, profile: Profile) -> None:
        """Is the cluster, until a signal comes; what the process of `start` does."""
        from treadle.cluster.launch import open_cluster

        # Not for long held by another: that one was faster.
        with contextlib.suppress(BlockingIOError), locked(self._lock) as lock:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._state.unlink(missing_ok=True)
            wanted = _until_signal()
            try:
                workers = self.folder / "workers.log"
                workers.touch(mode=0o600)
                with open_cluster(profile, str(workers)) as client:
                    address = client.scheduler_info(n_workers=0)["address"]
                    up = Standing(address, client.dashboard_link, os.getpid())
                    new = self._state.with_suffix(".new")
                    with open(new, "w", opener=private) as file:
                        json.dump(asdict(up), file)
                    new.rename(self._state)
                    wanted()
            finally:
                self._state.unlink(missing_ok=True)


def _until_signal() -> Callable[[], None]:
    """A function that returns when SIGTERM or SIGINT has come, since now."""
    came = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: came.set())

    def wait() -> None:
        while not came.wait(3600):
            pass

    return wait


if __name__ == "__main__":
    StandingCluster(Path(sys.argv[1])).stand(TypeAdapter(AnyProfile).validate_json(sys.argv[2]))
