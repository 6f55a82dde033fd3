"""Who wrote something: a process that others of the same system can tell to be gone."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from treadle.engine.document import Document

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")
SAME_SECONDS = 1.0
"""Numbers of processes are not used again so soon."""


class Process(Document):
    """A process of a system that was started once; its number may be another's later, not at the same time."""

    boot: str
    """As of `boot`."""
    namespace: str
    """Within which its number means it: containers of one machine number their processes for themselves."""
    pid: int
    started: float
    """Seconds after its system was, which no setting of the clock changes."""

    @property
    def is_gone(self) -> bool:
        """False where this process cannot know."""
        import psutil

        if (self.boot, self.namespace) != (boot(), _namespace()):
            return False
        try:
            return abs(_started(self.pid) - self.started) > SAME_SECONDS
        except psutil.NoSuchProcess:
            return True


def this_process() -> Process:
    """The one that asks."""
    pid = os.getpid()
    return Process(boot=boot(), namespace=_namespace(), pid=pid, started=_started(pid))


def boot() -> str:
    """The system since it was started: what is the same for all processes that see each other's locks."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        import psutil

        return f"{platform.node()} since {datetime.fromtimestamp(round(psutil.boot_time()), UTC).isoformat()}"


def _started(pid: int) -> float:
    import psutil

    since = psutil.boot_time()
    return psutil.Process(pid).create_time() - since


def _namespace() -> str:
    try:
        return os.readlink(PID_NAMESPACE)
    except OSError:
        return ""
