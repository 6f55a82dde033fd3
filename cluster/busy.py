"""Workers that still do what nobody wants any more, after a driver was stopped or has died."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client, Worker

GRACE_SECONDS = 0.3


def free_workers(client: Client) -> list[str]:
    """Kills workers whose threads are busy with tasks that were taken back; their addresses.

    A thread that trains a model cannot be stopped otherwise. The worker's nanny starts another one at once, and
    Dask does the tasks of other jobs that were on it again. A worker without a nanny stays as it is, since nobody
    would start it again.
    """
    stuck = _stuck(client)
    if stuck:
        time.sleep(GRACE_SECONDS)
        stuck &= _stuck(client)
    if stuck:
        client.run(_leave, workers=sorted(stuck), on_error="ignore")
    return sorted(stuck)


def _stuck(client: Client) -> set[str]:
    found = client.run(_busy_in_vain, on_error="ignore")
    return {worker for worker, tasks in found.items() if tasks}


def _busy_in_vain(dask_worker: Worker) -> list[object]:
    """Keys of tasks that run on, although the scheduler has taken them back; none where there is no nanny."""
    if dask_worker.nanny is None:
        return []
    return [
        task.key for task in dask_worker.state.tasks.values()
        if task.state == "cancelled" and task.previous in ("executing", "long-running")
    ]  # fmt: skip


def _leave() -> None:
    """Dask's own way to restart a worker waits seconds for its threads."""
    os.kill(os.getpid(), signal.SIGKILL)
